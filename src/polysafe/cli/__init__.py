"""The command line. Nothing heavy is imported before a command runs."""

from polysafe.cli.app import main

__all__ = ["main"]
