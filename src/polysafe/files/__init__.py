"""What lies on disk besides weights: durable writes, JSON files by their formats, places and paths of users."""
