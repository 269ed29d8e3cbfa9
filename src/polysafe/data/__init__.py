"""Prompt sets: parallel over languages, with ids, so that rows cannot slip."""
