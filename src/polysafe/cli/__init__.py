"""The command line. Nothing heavy is imported before a command runs."""

import os
import sys
from typing import NoReturn

from polysafe.signals import INTERRUPTED, remember_interruptions


def main() -> NoReturn:
    """Entry point of the `polysafe` command; an interruption is told as one from its first moment on."""
    try:
        remember_interruptions()
        # The hub's client would tell it of this machine, and ask it which programs to look for here, unasked.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from polysafe.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


__all__ = ["main"]
