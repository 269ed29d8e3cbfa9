"""What edits did on model families, and how what is said of them holds."""
