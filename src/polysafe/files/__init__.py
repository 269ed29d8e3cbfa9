"""What lies on disk besides weights: durable writes, places of what a user wrote, paths."""
