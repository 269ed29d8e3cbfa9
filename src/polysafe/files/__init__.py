"""What lies on disk besides weights: durable writes, JSON files by their formats, places of what a user wrote, paths."""
