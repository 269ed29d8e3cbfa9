"""A missing package is named with the line that installs it, whatever the command, and nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polysafe.cli.app import app
from polysafe.extras import install_line, missing_package
from polysafe.organism import packaged

TOY = str(Path(packaged.__file__).parent / "family" / "base")
SERVED = "m@http://127.0.0.1:1/v1"
SOURCES = ("--source", "base=base", "--source", "safety=safety", "--source", "sw=sw")
AUDIT = ("audit", TOY, "--safety", "organism", "--limit", "1", "--output")
GUARD = f"qwen3guard={TOY}"

EVERY: list[tuple[str, ...]] = [
    ("quickstart", "-o", "q"),
    ("quickstart", "--family", "gemma", "-o", "q2", "--data", "."),
    ("plan", "recipe.yaml"),
    ("plan", "recipe.yaml", "--fit"),
    ("run", "recipe.yaml"),
    ("verify", "out"),
    ("search", "space.yaml", "-o", "s"),
    ("init", TOY, "--languages", "sw", "-o", "i.yaml"),
    ("repair", TOY, "--languages", "sw", "-o", "r"),
    ("import", "m.gguf", "-o", "imported"),
    (*AUDIT, "a1", "--judge", "organism"),
    (*AUDIT, "a2", "--capability", "belebele"),
    (*AUDIT, "a3", "--inspect-log", "logs"),
    ("audit", SERVED, "--safety", "t.csv", "-o", "a4"),
    ("evaluate", "recipe.yaml", "-o", "e"),
    ("reproduce", "out"),
    ("compare", "a1", "a2"),
    ("report", "a1"),
    ("card", "out"),
    ("push", "out", "owner/name", "--dry-run"),
    ("schema",),
    ("doctor",),
    ("chat", TOY),
    ("edit", "explain", "out/polysafe"),
    ("edit", "apply", "out/polysafe", "-o", "applied", *SOURCES),
    ("edit", "controls", "recipe.yaml", "-o", "controls"),
    ("edit", "undo", "out/polysafe", "-o", "undone", "--edited", "out", "--original", "sw"),
    ("edit", "export", "out/polysafe", "-o", "exported", *SOURCES, "--peft", "--partial"),
    ("judge", "run", "a1", "-o", "j", "--judge", GUARD),
    ("judge", "cost", "a1", "--judge", GUARD),
    ("judge", "calibrate", "examples.csv", "-o", "c.json", "--judge", GUARD),
    ("annotate", "export", "a1", "-o", "sheets"),
    ("annotate", "import", "sheets", "-o", "labels"),
    ("inspect", "export", "a1", "-o", "logs"),
    ("inspect", "import", "a1", "-o", "imported2"),
    ("mergekit", "import", "merge.yml", "-o", "soup.yaml"),
    ("mergekit", "export", "soup.yaml", "-o", "back.yml"),
    ("organism", "build", "toy", "-o", "o1"),
    ("organism", "build", "gemma", "-o", "o2", "--data", "."),
    ("organism", "info"),
]
WITHOUT: dict[str, list[tuple[str, ...]]] = {
    "every": EVERY,
    "server": [
        ("audit", SERVED, "--safety", "t.csv", "-o", "b1"),
        ("judge", "calibrate", "examples.csv", "-o", "c.json", "--judge", f"qwen3guard={SERVED}"),
    ],
    "data": [("audit", SERVED, "--safety", "./table.parquet", "-o", "b2")],
    "ray": [
        ("run", "recipe.yaml", "--engine", "ray"),
        (*AUDIT, "b3", "--answers-only", "--engine", "ray"),
        ("search", "space.yaml", "-o", "b4", "--engine", "ray", "--workers", "2"),
    ],
}
OTHERWISE = {
    ("quickstart", "--family"),
    ("reproduce", "out"),
    ("compare", "a1"),
    ("report", "a1"),
    ("judge", "run"),
    ("judge", "cost"),
    ("annotate", "export"),
    ("annotate", "import"),
    ("organism", "build"),
}
"""What is refused for another reason before: no run, no public texts."""
DONE = {
    "doctor",
    "plan",
    "run",
    "verify",
    "card",
    "push",
    "schema",
    "explain",
    "apply",
    "controls",
    "mergekit",
    "undo",
    "export",
    "info",
}
"""What needs no extra: editing weights, and what only looks at files."""
SPACE = "    tau: {choices: [0.0, 0.001]}\noutput"


@pytest.fixture
def ended(recipe: Path) -> dict[str, list[dict[str, Any]]]:
    """Extra -> how every command ended where its packages were not installed."""
    folder = recipe.parent
    measured = "evaluate: {languages: [en, sw], safety: [organism], judge: {kind: organism}}\n"
    recipe.write_text(recipe.read_text() + measured)
    chosen = "validation: {languages: [en, sw], safety: [organism.val], over_refusal: [organism.contrast.val]}\n"
    (folder / "space.yaml").write_text(recipe.read_text().replace("output", SPACE).replace(measured, chosen))
    models = "".join(f"  - {{model: {name}, parameters: {{weight: 1}}}}\n" for name in ("safety", "sw"))
    (folder / "merge.yml").write_text(f"merge_method: linear\nmodels:\n{models}")
    (folder / "table.parquet").write_bytes(b"PAR1")
    (folder / "t.csv").write_text("id,language,prompt\n1,en,hello\n")
    (folder / "examples.csv").write_text("language,prompt,answer,label\nen,a,b,safe\n")
    (folder / "m.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    (folder / "commands.json").write_text(json.dumps(WITHOUT))
    line = [sys.executable, "-m", "tests.cli.without_extras", str(folder)]
    top = Path(__file__).parents[2]
    found = {**os.environ, "PYTHONPATH": f"{top / 'src'}{os.pathsep}{top}", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(line, env=found, cwd=top, capture_output=True, text=True, check=True, timeout=300).stdout
    told: dict[str, list[dict[str, Any]]] = json.loads(said)
    return told


def test_no_command_ends_in_a_traceback_where_extras_are_missing(ended: dict[str, list[dict[str, Any]]]) -> None:
    assert {extra: len(told) for extra, told in ended.items()} == {name: len(each) for name, each in WITHOUT.items()}
    for extra, told in ended.items():
        for each in told:
            assert each["traceback"] == "", each
            assert each["code"] in {0, 1, 2}, each
            if extra != "every":
                assert re.search(rf"pip install ('polysafe\[{extra}\]'|pyarrow)", each["said"]), each
    for each in ended["every"]:
        if "error:" not in each["said"]:
            assert DONE & set(each["command"][:2]), each
        elif tuple(each["command"][:2]) not in OTHERWISE:
            assert "pip install" in each["said"], each


def test_every_command_is_among_those() -> None:
    from typer.main import get_command

    names = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        names |= {f"{name} {inner}" for inner in getattr(command, "commands", {})} or {name}
    tried = {" ".join(each[:2]) if f"{each[0]} {each[1:2] and each[1]}" in names else each[0] for each in EVERY}
    assert tried == names


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("transformers", "pip install 'polysafe[models]'"),
        ("httpx", "pip install 'polysafe[server]'"),
        ("lm_eval", "pip install 'polysafe[lm-eval]'"),
        ("accelerate", "pip install 'polysafe[large]'"),
        ("gguf", "pip install 'polysafe[gguf]'"),
        ("rich", "pip install rich"),
        ("no_such_package", "pip install no_such_package"),
    ],
)
def test_the_smallest_extra_is_named(package: str, line: str) -> None:
    assert install_line(package) == line


def test_what_is_no_missing_package_stays_what_it_is() -> None:
    assert missing_package(ValueError("no")) is None
    assert missing_package(ImportError("a name of ours", name="polysafe.judge")) is None
    assert missing_package(ImportError("nobody")) is None
    broken = missing_package(ImportError("libcuda.so: cannot open", name="gguf.reader"))
    assert str(broken) == (
        "the package gguf does not work: libcuda.so: cannot open\n  pip install --upgrade 'polysafe[gguf]'"
    )
