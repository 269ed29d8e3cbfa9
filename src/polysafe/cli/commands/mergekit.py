"""`polysafe mergekit import` and `export`: configurations of mergekit as recipes and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from polysafe.cli.console import note, print_json, print_line
from polysafe.files.atomic import write_bytes_atomic
from polysafe.files.yaml_lines import write_yaml
from polysafe.recipe.mergekit_read import read_mergekit
from polysafe.recipe.mergekit_write import write_mergekit
from polysafe.recipe.recipe import load_recipe, make_recipe, read_recipe_file


def import_configuration(configuration: Path, output: Path, model: str | None, *, as_json: bool) -> None:
    """Write a configuration as a recipe."""
    text = read_recipe_file(configuration)
    folder = f"{output.stem}-model" if model is None else str(Path(model).absolute())
    converted = read_mergekit(text, str(configuration), output=folder, relative_to=output.parent)
    make_recipe(converted.data, output.parent)
    _write(output, write_yaml(converted.data), converted.notes, as_json=as_json)


def export_recipe(recipe: Path, output: Path, *, as_json: bool) -> None:
    """Write a recipe as a configuration."""
    written = write_mergekit(load_recipe(recipe))
    _write(output, written.text, written.notes, as_json=as_json)


def _write(output: Path, text: str, notes: Iterable[str], *, as_json: bool) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(output, text.encode())
    if as_json:
        print_json({"written": str(output), "notes": list(notes)})
        return
    for each in notes:
        note(each)
    print_line(output)
