"""The page of examples runs as it stands: every command of it, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

from polysafe.organism.packaged import packaged_family
from tests.commands import run_command

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
ELSEWHERE = ("@http", "polysafe repair")
"""What has tests of its own: a served model, and the long one."""
LESS = {"polysafe evaluate": " --limit 4", "polysafe search": " --trials 2"}
PROMPTS = ("prompts: 25", "prompts: 4")
"""Of what the commands do, enough to see that they do it."""


def installed(package: Path, folder: Path) -> None:
    """A package as `pip install` leaves it, without the tools that build it."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    (name,) = project["tool"]["setuptools"]["packages"]
    shutil.copytree(package / name, folder / name)
    about, info = project["project"], folder / f"{name}-{project['project']['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    groups = about["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in given.items()) for group, given in groups]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("models", "out", "results", "runs"))
    (folder / "models").symlink_to(packaged_family().root)
    for recipe in folder.glob("*.yaml"):
        recipe.write_text(recipe.read_text(encoding="utf-8").replace(*PROMPTS), encoding="utf-8")
    installed(folder / "plugin", tmp_path / "site")
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path / 'site'}", "POLYSAFE_CACHE": str(tmp_path / "cache")}
    lines = [line for line in COMMANDS if line.startswith("polysafe ")]
    for line in (line for line in lines if not any(word in line for word in ELSEWHERE)):
        less = LESS.get(" ".join(line.split()[:2]), "")
        status, said = run_command(line + less, folder, {**os.environ, **paths})
        assert status == 0, f"{line}\n{said}"
    pages = {str(page.relative_to(folder)) for page in folder.glob("*/*/**/report/index.html")}
    assert {f"results/{name}/report/index.html" for name in ("one_language", "chosen", "own")} <= pages
    assert "first_word" in (folder / "results/own/report/index.html").read_text(encoding="utf-8")
    assert (folder / "adapters/qac/adapter_config.json").is_file()
    assert sorted(each.name for each in (folder / "out/many").iterdir()) == ["qac", "qad", "qae"]


def test_every_recipe_is_on_the_page() -> None:
    for recipe in EXAMPLES.glob("*.yaml"):
        assert f"]({recipe.name})" in PAGE
        for command in re.findall(r"^#     (polysafe .*)$", recipe.read_text(encoding="utf-8"), re.MULTILINE):
            assert command in COMMANDS


def test_the_method_is_that_of_the_contributing_page() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert (EXAMPLES / "plugin/polysafe_example/mlp_swap.py").read_text(encoding="utf-8") in page
