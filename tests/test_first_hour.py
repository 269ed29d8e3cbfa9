"""The page for the first hour runs as it stands, with fewer prompts and blocks, on the packaged real models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from polysafe.checkpoint.dtypes import fast_type
from tests.commands import run_command
from tests.real_models import BLOCKS, GEMMA, SMOLLM2, import_command, imported, linked, needs
from tests.shared import DATA, needs_data

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first_hour.md"
SMALL = {"LIMIT": "2", "STEPS": "1"}
_NUMBERS = {
    r"limit: \d+": "limit: 4",
    r"prompts: \d+": "prompts: 2",
    r"--max-tokens \d+": "--max-tokens 4",
    r"layers: \[10, 14\]": "layers: [2, 4]",
}
_BLOCK = re.compile(r"^```(console|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"`([a-z]+\.yaml)`")
MAY_FIND_NOTHING = "plan --fit chosen.yaml"
"""Validation on two prompts may find nothing that helps; that is told, and ends with 1."""


def section(number: int) -> str:
    return re.split(r"^## \d+\. |^## What it takes", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[number]


def steps(text: str) -> list[tuple[str, str]]:
    """("command", line) and ("file NAME", content), in order; the name of a recipe stands before or after it."""
    found: list[tuple[str, str]] = []
    for match in _BLOCK.finditer(text):
        if match[1] == "console":
            found += [("command", line.removeprefix("$ ")) for line in match[2].splitlines()]
            continue
        before, after = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1], text[match.end() :].lstrip()
        name = _NAMED.search(before) or _NAMED.search(after.split("\n\n", 1)[0])
        assert name is not None, f"no name for a recipe of the page: {match[2][:60]}"
        found.append((f"file {name[1]}", match[2]))
    return found


def carry_out(numbers: list[int], folder: Path, imports: dict[str, Path]) -> dict[str, str]:
    """Runs sections of the page in a folder; what every command printed. Commands of `imports` have run before."""
    (folder / "data").symlink_to(DATA)
    (folder / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    places = {"PYTHONPATH": str(ROOT / "src"), "POLYSAFE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **places, **SMALL, "DATA": "./data", "PATH": path}
    said = {}
    for kind, text in (step for number in numbers for step in steps(section(number))):
        if kind != "command":
            (folder / kind.removeprefix("file ")).write_text(_smaller(text), encoding="utf-8")
            continue
        if text in imports:
            linked(imports[text], folder / text.rsplit(" ", 1)[-1])
            continue
        line = _smaller(text)
        status, said[text] = _run(line, folder, environment)
        allowed = (0, 1) if MAY_FIND_NOTHING in text else (0,)
        assert status in allowed, f"{text}\n{said[text]}"
        assert "Traceback" not in said[text], text
    assert all((folder / command.rsplit(" ", 1)[-1]).is_dir() for command in imports), "the page imports otherwise"
    return said


def _run(line: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    if line.startswith(("polysafe ", "python ")):
        return run_command(line, folder, environment)
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _smaller(text: str) -> str:
    """With small numbers, and without bfloat16 on a processor for which the page says to leave it out."""
    text = re.sub(r"\bBF16\b", fast_type(), text).replace("en,zh,ar,sw", "en,zh")
    for pattern, small in _NUMBERS.items():
        text = re.sub(pattern, small, text)
    return text


@needs_data
@needs(SMOLLM2, "gguf", "peft")
def test_smollm2(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    imports = {import_command(SMOLLM2, "models/smollm2"): imported(SMOLLM2, tmp_path_factory, blocks=BLOCKS)}
    said = carry_out([2, 3, 4, 5, 6, 7], tmp_path, imports)
    audit = next(text for command, text in said.items() if command.startswith("polysafe audit models/smollm2"))
    assert "unsafe answers were not measured" in audit
    assert "refusal_log_odds" in audit
    plan = next(text for command, text in said.items() if command.startswith("polysafe plan sparse.yaml"))
    assert "quantised" in plan
    compared = next(text for command, text in said.items() if command.startswith("polysafe compare"))
    assert "Refusal log-odds, before" in compared
    assert (tmp_path / "results" / "sparse" / "report" / "index.html").is_file()
    assert (tmp_path / "adapters" / "steer" / "adapter_config.json").is_file()
    assert (tmp_path / "out" / "undone" / "model.safetensors").read_bytes() == (
        tmp_path / "models" / "smollm2" / "model.safetensors"
    ).read_bytes()


@needs_data
@needs(GEMMA, "gguf")
def test_gemma(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    said = carry_out([8], tmp_path, {import_command(GEMMA, "models/gemma"): imported(GEMMA, tmp_path_factory)})
    audits = [text for command, text in said.items() if command.startswith("polysafe audit")]
    assert all("refusal_log_odds" in text for text in audits)
    assert any("TERMS" in path.name.upper() for path in (tmp_path / "models" / "gemma").rglob("*"))


def test_the_page_names_every_recipe_that_it_uses() -> None:
    text = PAGE.read_text(encoding="utf-8")
    written = {kind.removeprefix("file ") for kind, _ in steps(text) if kind != "command"}
    used = {name for kind, line in steps(text) if kind == "command" for name in re.findall(r"[a-z]+\.yaml", line)}
    assert written == used
