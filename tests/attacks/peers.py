"""What other programs do with the hostile folders: `python -m tests.attacks.peers OUT.json NAME=PYTHON …`.

Every argument names a program (`polysafe`, `transformers`, `lm_eval`, `mergekit`) and the interpreter of an environment
in which it is installed. A folder of a case is made whole for those who look at the config first: it gets that of a
small Llama, but where the config is the case. The outcomes of a machine are kept in `peers.json`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.attacks.hostile import ATTACKS, PWNED, SECRET, write_attack
from tests.models import tiny_llama

SECONDS = 20
MEMORY = 4 * 2**30
SOUND = "a sound folder"
OPENER = Path(__file__).with_name("opener.py")
PACKAGES = {"polysafe": "polysafe", "transformers": "transformers", "lm_eval": "lm_eval", "mergekit": "mergekit"}
_BARE = '{"num_hidden_layers": 1}'


def write_all(place: Path) -> dict[str, Path]:
    """The folders of all cases and a sound one, by the name of the case."""
    sound = tiny_llama(place / "sound" / "checkpoint", layers=1)
    config = (sound / "config.json").read_text(encoding="utf-8")
    folders = {SOUND: sound}
    for name, case in ATTACKS.items():
        folder = write_attack(case, place / re.sub(r"\W+", "-", name))
        file = folder / "config.json"
        if file.is_file() and file.stat().st_size == len(_BARE) and file.read_text(encoding="utf-8") == _BARE:
            file.write_text(config, encoding="utf-8")
        folders[name] = folder
    return folders


def tried(program: str, python: str) -> dict[str, dict[str, Any]]:
    """The outcome of every case with one program."""
    with tempfile.TemporaryDirectory() as place:
        folders = write_all(Path(place))
        for folder in folders.values():
            forget_reading(folder.parent / SECRET)
        command = [python, str(OPENER), program, str(SECONDS), str(MEMORY)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "SOUND_TOKENIZER": str(folders[SOUND])}
        lines = "".join(f"{folder}\n" for folder in folders.values())
        said = subprocess.run(
            command, input=lines, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=OPENER.parents[2]
        )
        outcomes = [json.loads(line) for line in said.stdout.splitlines()]
        return {
            name: without_place(outcome, folder) | marks(folder)
            for (name, folder), outcome in zip(folders.items(), outcomes, strict=True)
        }


def forget_reading(file: Path) -> None:
    """Sets the time of the last reading before that of writing, so that the next reading shows."""
    if file.exists():
        os.utime(file, (1, file.stat().st_mtime))


def marks(folder: Path) -> dict[str, bool]:
    """What the case was after and got: code that ran, a file outside that was read."""
    secret = folder.parent / SECRET
    found = {"ran_code": (folder / PWNED).exists(), "read_outside": secret.exists() and secret.stat().st_atime != 1}
    return {name: True for name, got in found.items() if got}


def without_place(outcome: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The outcome without the name of a folder of this machine."""
    text = str(outcome.pop("text", "")).replace(str(folder), "FOLDER").replace(str(folder.parent), "BESIDE")
    return outcome | ({"text": text[:160]} if text else {})


def installed(program: str, python: str) -> str:
    """The version of a program in an environment."""
    if program == "polysafe":
        return version("polysafe")
    line = f"from importlib.metadata import version; print(version({PACKAGES[program]!r}))"
    return subprocess.run([python, "-c", line], capture_output=True, text=True, check=True).stdout.strip()


def main(out: Path, programs: dict[str, str]) -> None:
    found = {
        "seconds": SECONDS,
        "bytes": MEMORY,
        "versions": {program: installed(program, python) for program, python in programs.items()},
        "outcomes": {program: tried(program, python) for program, python in programs.items()},
    }
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(argument.split("=", 1) for argument in sys.argv[2:]))
