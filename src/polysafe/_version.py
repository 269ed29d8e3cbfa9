"""The version of polysafe."""

__version__ = "0.1.0"
