"""CPU seconds until a command answers: `--help` of polysafe, of a subcommand, and an empty Python program.

python -m benchmarks.startup
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "polysafe --help": [sys.executable, "-m", "polysafe", "--help"],
    "polysafe plan --help": [sys.executable, "-m", "polysafe", "plan", "--help"],
}
RUNS = 7


def main() -> None:
    """Prints the median of several runs, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, command in COMMANDS.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for name, values in seconds.items():
        print(f"{name:22} {statistics.median(values):.2f} CPU s")


if __name__ == "__main__":
    main()
