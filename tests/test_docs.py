"""What the documentation says is true: its examples run and its tables are those of the code."""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from fnmatch import fnmatch
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

import polysafe
from polysafe.data.attacks import Material, attack, attack_names, rewritten
from polysafe.data.prompts import Prompt, PromptSet
from polysafe.errors import RecipeError
from polysafe.methods import registry
from polysafe.methods.registry import resolve
from polysafe.recipe.each import parse_recipes
from polysafe.recipe.recipe import parse_recipe, recipe_schema
from tests.models import trio
from tools.site import ELSEWHERE, relinked

ROOT = Path(__file__).parents[1]


def blocks(file: str, language: str) -> list[str]:
    """The fenced code blocks of a Markdown file in one language."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def options_table(entry: dict[str, Any]) -> str:
    """The table of a method's options as `docs/recipe.md` has to show it."""
    lines = [f"### `{entry['properties']['method']['enum'][0]}`", "", entry["description"], ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    for name, about in entry["properties"].items():
        if name != "method":
            default = "required" if name in entry["required"] else _default(about["default"])
            meaning = " ".join(about["description"].split()).replace("|", "\\|")
            lines.append(f"| `{name}` | {default} | {meaning}{_values(about)} |")
    return "\n".join(lines)


def _default(value: object) -> str:
    return "–" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _values(about: dict[str, Any]) -> str:
    values = next((case["enum"] for case in [about, *about.get("anyOf", [])] if "enum" in case), ())
    return " Values: " + ", ".join(f"`{value}`" for value in values) + "." if values else ""


METHODS = {
    entry["properties"]["method"]["enum"][0]: entry
    for entry in recipe_schema()["properties"]["edits"]["items"]["oneOf"]
}


@pytest.mark.parametrize("name", METHODS)
def test_recipe_page_has_the_options_of_every_method(name: str) -> None:
    assert options_table(METHODS[name]) in (ROOT / "docs/recipe.md").read_text(encoding="utf-8")


def test_the_attacks_page_has_every_attack_as_the_code_has_it() -> None:
    text = (ROOT / "docs/attacks.md").read_text(encoding="utf-8")
    for one in map(attack, attack_names()):
        assert f"| `{one.name}` | {one.title} | {one.source} | {one.elsewhere or '–'} |" in text


def test_the_attack_of_the_attacks_page_rewrites() -> None:
    (program,) = blocks("docs/attacks.md", "python")
    found: dict[str, Any] = {}
    exec(program, found)
    prompts = PromptSet("bakery", (Prompt("bakery", "0", "en", "How do I bake bread?", "harmless"),))
    assert rewritten(found["SHOUT"], prompts, Material.of(prompts)).prompts[0].text == "HOW DO I BAKE BREAD?"


@pytest.mark.parametrize("text", [*blocks("docs/recipe.md", "yaml"), *blocks("docs/hybrids.md", "yaml")])
def test_recipes_of_the_pages_are_read(text: str) -> None:
    assert all(recipe.edits for recipe in parse_recipes(text))


def test_mistake_of_the_recipe_page_is_reported_as_it_says() -> None:
    mistaken = blocks("docs/recipe.md", "yaml")[0].replace("granularity:", "granularty:")
    with pytest.raises(RecipeError) as caught:
        parse_recipe(mistaken, "recipe.yaml")
    shown = textwrap.indent(f"error: {caught.value}", "    ")
    assert shown in (ROOT / "docs/recipe.md").read_text(encoding="utf-8")


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = blocks("README.md", "yaml")
    (program,) = blocks("README.md", "python")
    models = trio(tmp_path)
    models.safety.rename(tmp_path / "safety-en")
    models.language.rename(tmp_path / "expert-sw")
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    assert polysafe.verify(tmp_path / "out/sw").ok


def test_method_of_the_contributing_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = blocks("CONTRIBUTING.md", "python")
    file = tmp_path / "mlp_swap.py"
    file.write_text(program)
    monkeypatch.setattr(registry, "_registered", {name: dict(v) for name, v in registry._registered.items()})
    spec = util.spec_from_file_location("mlp_swap", file)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mlp_swap", module)
    spec.loader.exec_module(module)
    assert resolve("mlp_swap").name == "mlp_swap"

    models = trio(tmp_path)
    recipe = polysafe.make_recipe(
        {
            "polysafe": 1,
            "sources": {"safety": {"path": models.safety}, "sw": {"path": models.language}},
            "edits": [{"method": "mlp_swap", "safety": "safety", "language": "sw"}],
            "output": {"path": tmp_path / "out"},
        }
    )
    touched = polysafe.plan(recipe).edit.touched
    assert touched
    assert all(".mlp." in tensor for tensor in touched)
    assert polysafe.verify(polysafe.run(recipe).output).ok


def test_citation_names_the_papers_and_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    identifiers = {i["value"] for reference in citation["references"] for i in reference["identifiers"]}
    assert identifiers == {"arXiv:2601.22620", "arXiv:2602.22554", "arXiv:2502.11244"}
    assert citation["version"] == polysafe.__version__


PAGES = [*ELSEWHERE, *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]


MOST_WORDS = 1200
LONG = (
    "docs/results/*.md",
    "docs/recipe.md",
    "docs/architectures.md",
    "docs/trust/faults.md",
    "docs/trust/peers.md",
)
"""Pages of the site that may be longer: results, and what is looked up and not read."""


def words(markdown: str) -> int:
    """How many words a page has, those of its tables too and those of blocks of code not."""
    return len(re.sub(r"(?ms)^( *)```.*?^\1```$", "", markdown).split())


def words_of(page: str) -> int:
    return words((ROOT / page).read_text(encoding="utf-8"))


def test_words_are_counted_without_code() -> None:
    assert words("# One two\n\n```python\nnot = 1\n```\n\n  ```console\n  $ not\n  ```\n\nthree\n") == 4


def test_no_page_is_too_long_to_be_read() -> None:
    pages = [page for page in PAGES if page.startswith("docs/") and not any(fnmatch(page, each) for each in LONG)]
    too_long = {page: count for page in pages if (count := words_of(page)) > MOST_WORDS}
    assert too_long == {}, "split it, or say it shorter"


@pytest.mark.parametrize("pattern", LONG)
def test_pages_that_may_be_longer_are(pattern: str) -> None:
    assert max(words_of(page) for page in PAGES if fnmatch(page, pattern)) > MOST_WORDS


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_programs_import_what_there_is(page: str) -> None:
    for program in blocks(page, "python"):
        body = ast.parse(program).body
        imports: list[ast.stmt] = [each for each in body if isinstance(each, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page, "exec"), {})


def test_the_program_of_the_statistics_page_says_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks("docs/statistics.md", "python")
    exec(program, {})
    assert round(float(capsys.readouterr().out.splitlines()[-1]), 2) == 0.07


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if not link.startswith("https://")]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_every_page_is_in_the_menu_of_the_site_once() -> None:
    found: list[str] = []

    def listed(entry: object) -> None:
        match entry:
            case str():
                found.append(entry)
            case dict():
                listed(list(entry.values()))
            case list():
                for each in entry:
                    listed(each)

    listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = [*ELSEWHERE.values(), *(page.removeprefix("docs/") for page in PAGES if page.startswith("docs/"))]
    assert sorted(found) == sorted(pages)


def test_links_of_the_repository_become_links_of_the_site() -> None:
    text = (
        "[a](../README.md), [b](search.md#cost), [recipe.md](../docs/recipe.md), [c](../tests/conftest.py), "
        "![d](quickstart.png), [e](https://example.org/x.md), [f](#here)"
    )
    assert relinked(text, "results/x.md", "docs/results.md") == (
        "[a](../readme.md), [b](../search.md#cost), [The recipe](../recipe.md), c, "
        "![d](../quickstart.png), [e](https://example.org/x.md), [f](#here)"
    )
