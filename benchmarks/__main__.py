"""`python -m benchmarks`: runs what is claimed, and prints both sides of every comparison."""

from __future__ import annotations

import sys

from benchmarks import merge, startup

if __name__ == "__main__":
    startup.main()
    merge.main(sys.argv[1:])
