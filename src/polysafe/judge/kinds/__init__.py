"""Judges, a file a kind: the judge, and the block by which recipes name it; guard models are in `guards`."""
