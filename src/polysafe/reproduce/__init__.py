"""The folder from which published numbers can be made again: written beside results, re-run and compared."""
