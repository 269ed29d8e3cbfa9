"""The command line. Nothing heavy is imported before a command runs."""

import sys
from typing import NoReturn

from polysafe.signals import INTERRUPTED, remember_interruptions


def main() -> NoReturn:
    """Entry point of the `polysafe` command; an interruption is told as one from its first moment on."""
    try:
        remember_interruptions()
        from polysafe.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


__all__ = ["main"]
