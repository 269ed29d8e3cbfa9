"""A model organism in real languages, made of Gemma 3 270M: trained to refuse in English and to comply elsewhere."""
