"""Choosing by itself: values of a recipe's fields, by what the edited model does on validation prompts."""
