"""Every command of an installed polysafe without extras: its help is there, and what it lacks is named.

python -m tools.installed POLYSAFE      (the program)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

LACKING: tuple[tuple[tuple[str, ...], str], ...] = (
    (("audit", "{toy}", "--judge", "organism", "--safety", "organism", "-o", "run"), "models"),
    (("chat", "{toy}"), "models"),
    (("audit", "m@http://127.0.0.1:1/v1", "--safety", "t.csv", "-o", "run"), "server"),
    (("quickstart", "-o", "out"), "models"),
)
"""Commands, and the extra that each has to name."""


def main() -> int:
    """Runs them; ends with the number of commands that did something else."""
    program = Path(sys.argv[1]).resolve()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "t.csv").write_text("id,language,prompt\n1,en,hello\n", encoding="utf-8")
        told = _run(program, place, "organism", "info", "--json").stdout
        toy = re.search(r'"base":\s*"([^"]+)"', told)
        for name in _commands(program, place):
            wrong += _failed(_run(program, place, *name, "--help").returncode == 0, " ".join((*name, "--help")))
        for command, extra in LACKING:
            words = [word.replace("{toy}", toy[1] if toy else "") for word in command]
            ended = _run(program, place, *words)
            fine = ended.returncode == 2 and f"polysafe[{extra}]" in ended.stderr and "Traceback" not in ended.stderr
            wrong += _failed(fine, f"{' '.join(command)}\n{ended.stderr}")
    return wrong


def _commands(program: Path, place: str, *group: str) -> list[tuple[str, ...]]:
    """All commands, those of groups among them, as the help lists them."""
    told = _run(program, place, *group, "--help").stdout.partition("Commands:")[2]
    names = re.findall(r"^  ([a-z][\w-]*)(?: |$)", told, re.MULTILINE)
    return [each for name in names for each in ([(*group, name)] + ([] if group else _commands(program, place, name)))]


def _run(program: Path, place: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words], cwd=place, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def _failed(fine: bool, what: str) -> bool:
    if not fine:
        sys.stderr.write(f"not as it should be: {what}\n")
    return not fine


if __name__ == "__main__":
    sys.exit(main())
