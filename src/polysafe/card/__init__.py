"""The model card of an output."""
