"""Work on several machines: the same tasks, models and searches as on one, handed to a Ray cluster."""
