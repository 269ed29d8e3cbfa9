"""Models under attack: the prompts of a run, rewritten, asked and judged, and held against the published ones."""
