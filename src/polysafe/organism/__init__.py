"""A model organism: a toy world, small models trained to have the problem, and an exact exam."""
