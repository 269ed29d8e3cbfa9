"""Every command of README and docs is one that the command line takes; every set in them is there in its languages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.data.sets import load_set
from polysafe.data.sets.registry import require_disjoint
from polysafe.errors import DataError
from polysafe.files.yaml_lines import read_yaml
from polysafe.recipe.each import parse_recipes
from polysafe.recipe.recipe import Recipe
from polysafe.search.space import make_space
from tests.byte_level import save_byte_model
from tests.shared import DATA, needs_data

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHANGED = {
    "--judge": 1,
    "--translate": 1,
    "--calibration": 1,
    "--key": 1,
    "--judge-key": 1,
    "--data": 1,
    "--engine": 1,
    "--address": 1,
    "--output": 1,
    "--limit": 1,
    "--max-tokens": 1,
}
"""Options of an audit that name what no test has or are given otherwise, with the number of their values."""
_SMALL = ["--limit", "1", "--max-tokens", "2"]


def commands() -> Iterator[Any]:
    """Every command line of a page, without comments and without what an ellipsis stands for."""
    for page in PAGES:
        for block in _CONSOLE.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ polysafe "):
                    words = shlex.split(line.removeprefix("$ polysafe "), comments=True)
                    yield pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}")


COMMANDS = list(commands())


def audits() -> list[Any]:
    """What the audits of the pages ask for, each once; options of `_CHANGED` are left out."""
    asked: dict[tuple[str, ...], str] = {}
    for each in COMMANDS:
        words = each.values[0]
        if words[0] == "audit" and "…" not in words:
            asked.setdefault(tuple(_without(words[2:], _CHANGED)), each.id)
    return [pytest.param(words, id=name) for words, name in asked.items()]


def _without(words: list[str], options: dict[str, int]) -> list[str]:
    kept, place = [], 0
    while place < len(words):
        if words[place] in options:
            place += 1 + options[words[place]]
        else:
            kept.append(words[place])
            place += 1
    return kept


def recipes() -> Iterator[Any]:
    for page in PAGES:
        for number, text in enumerate(_YAML.findall(page.read_text(encoding="utf-8"))):
            if text.startswith("polysafe: 1"):
                yield pytest.param(text, id=f"{page.name} {number}")


@pytest.fixture(scope="module")
def line() -> Any:
    return get_command(app)


@pytest.mark.parametrize("words", COMMANDS)
def test_the_command_line_takes_it(words: list[str], line: Any) -> None:
    known = [re.sub(r"^\$[A-Z]+$", "1", word) for word in words if word != "…"]
    parse(line, known, whole="…" not in words)


def parse(command: Any, words: list[str], *, whole: bool, parent: Any = None) -> None:
    """What the command line does before it runs a command; required options may be in what an ellipsis stands for."""
    group = hasattr(command, "resolve_command")
    context = command.make_context("polysafe", list(words), parent=parent, resilient_parsing=not (group or whole))
    if group:
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        parse(found, rest, whole=whole, parent=context)


@needs_data
@pytest.mark.parametrize("words", audits())
def test_an_audit_of_a_page_runs_on_the_public_files(words: tuple[str, ...], tmp_path: Path) -> None:
    """With a tiny random model and one prompt a language; judges are left out, for no test has a guard model."""
    torch.set_num_threads(1)
    model = save_byte_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    given = ["audit", str(model), *words, *_SMALL, "--data", str(DATA), "--output", str(tmp_path / "run")]
    result = CliRunner(env={"POLYSAFE_CACHE": str(tmp_path / "cache")}).invoke(app, given)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "report" / "index.html").is_file()


def settled(text: str) -> Recipe:
    """A recipe of a page; of one that is to be searched the first point."""
    content = read_yaml(text, "page").value
    assert isinstance(content, dict)
    return make_space(content).first if "search" in content else parse_recipes(text)[0]


@needs_data
@pytest.mark.parametrize("text", list(recipes()))
def test_the_sets_of_a_recipe_are_there_in_its_languages(text: str) -> None:
    recipe = settled(text)
    measured = [(block, ("safety", "over_refusal")) for block in (recipe.evaluate, recipe.validation) if block]
    for block, lists in measured:
        wanted = block.languages or None
        for names in lists:
            for name in getattr(block, names):
                if not isinstance(name, Path):
                    assert load_set(name, data=DATA, languages=wanted, limit=1, all_languages=False)
    _check_apart(recipe)


def _check_apart(recipe: Recipe) -> None:
    """Nothing is reported on that a choice was made by, or an edit is fitted to."""
    reported = [] if recipe.evaluate is None else [*recipe.evaluate.safety, *recipe.evaluate.over_refusal]
    chosen = [] if recipe.validation is None else [*recipe.validation.safety, *recipe.validation.over_refusal]
    sets = {name: load_set(name, data=DATA) for name in (*reported, *chosen) if not isinstance(name, Path)}
    for one in chosen:
        for other in reported:
            if one in sets and other in sets:
                require_disjoint(sets[one], sets[other])


def test_a_set_in_a_language_that_it_lacks_is_what_this_finds() -> None:
    """The check itself can fail."""
    with pytest.raises(DataError):
        load_set("multijail", data=DATA if DATA.is_dir() else Path("nowhere"), languages=["te"], all_languages=False)
