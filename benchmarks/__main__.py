"""`python -m benchmarks`: runs what is claimed, and prints both sides of every comparison."""

from __future__ import annotations

import sys

from benchmarks import bench, startup

if __name__ == "__main__":
    startup.main()
    bench.main(sys.argv[1:])
