"""What a user writes: the recipe."""
