"""First recipes say what there is and what it needs; a repair makes what helps, or says why nothing does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.errors import DataError, RecipeError, ResourceError
from polysafe.findings.choosing import load_choosing
from polysafe.organism.packaged import packaged_family
from polysafe.search.space import load_space
from polysafe.workflows.first_recipe import Given, attempts, chosen_attempt, methods, spoken_languages, written
from polysafe.workflows.repair import RESULT, repair
from tests.byte_level import save_byte_model

MEMBERS = packaged_family().members


def given(tmp_path: Path, **more: Path) -> Given:
    return Given(model=MEMBERS["qac"], languages=("qac",), output=tmp_path / "out", **more)  # type: ignore[arg-type]


def test_what_can_be_tried_depends_on_what_there_is(tmp_path: Path) -> None:
    alone = attempts(given(tmp_path))
    assert list(alone.recipes) == ["sparse_edit"]
    assert set(alone.left_out) == {"behaviour_swap", "layer_swap", "band_swap", "task_arithmetic", "head_steering"}
    full = attempts(given(tmp_path, base=MEMBERS["base"], safety=MEMBERS["safety"], harmful=MEMBERS["harm"]))
    assert not full.left_out


@pytest.mark.parametrize("method", list(methods()))
def test_a_first_recipe_can_be_searched_and_says_every_default(tmp_path: Path, method: str) -> None:
    found = attempts(given(tmp_path, base=MEMBERS["base"], safety=MEMBERS["safety"], harmful=MEMBERS["harm"]))
    file = tmp_path / "recipe.yaml"
    file.write_text(written(chosen_attempt(found, method), tmp_path), encoding="utf-8")
    space = load_space(file)
    assert space.parameters
    (edit,) = space.first.edits
    text = file.read_text(encoding="utf-8")
    for name, field in type(edit).model_fields.items():
        assert f"  {field.alias or name}: " in text or f"# {field.alias or name}: " in text
    uncommented = text.replace("  # ", "  ").replace("  Left as they are:", "")
    assert "method" in yaml.safe_load(text)["edits"][0]
    assert len(uncommented) < len(text)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    found = attempts(given(tmp_path))
    with pytest.raises(RecipeError, match="needs a safety expert: --safety-expert"):
        chosen_attempt(found, "band_swap")
    with pytest.raises(RecipeError, match="did you mean 'sparse_edit'"):
        chosen_attempt(found, "sparce_edit")
    with pytest.raises(RecipeError, match="no language is named"):
        attempts(replace(given(tmp_path), languages=()))
    with pytest.raises(RecipeError, match="is no folder"):
        attempts(given(tmp_path, base=tmp_path / "nowhere", safety=MEMBERS["safety"]))


def test_a_model_alone_without_anchors_cannot_be_repaired(tmp_path: Path) -> None:
    model = save_byte_model(tmp_path / "bytes")
    with pytest.raises(RecipeError, match=r"(?s)no method can be tried.*--anchors"):
        attempts(Given(model=model, languages=("sw",), output=tmp_path / "out"))
    empty = tmp_path / "data"
    empty.mkdir()
    with pytest.raises(DataError, match="to choose by"):
        attempts(Given(model=model, languages=("sw",), output=tmp_path / "out", data=empty))


def test_a_member_of_another_family_has_no_prompts_of_its_own(tmp_path: Path) -> None:
    model = save_byte_model(tmp_path / "family" / "aligned")
    record = {"schema": 1, "seed": 0, "recipe": {"aligned": {"steps": 400}}, "members": {"aligned": {}}}
    (tmp_path / "family" / "family.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"(?s)no method can be tried.*--anchors"):
        attempts(Given(model=model, languages=("sw",), output=tmp_path / "out"))


def test_an_adapter_is_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match="merge it into its base"):
        attempts(Given(model=tmp_path, languages=("sw",), output=tmp_path / "out"))


def test_languages_in_any_spelling() -> None:
    assert spoken_languages(["Swahili", "bn", "swh", "qac"]) == ("sw", "bn", "qac")


def test_a_repair_ends_in_a_model_and_its_report(tmp_path: Path) -> None:
    output = tmp_path / "repaired"
    arguments = [
        *("repair", str(MEMBERS["qac"]), "--languages", "qac", "--safety-expert", str(MEMBERS["safety"])),
        *("--output", str(output), "--trials", "2", "--limit", "16", "--controls", "0", "--quiet"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads((output / RESULT).read_text(encoding="utf-8"))
    assert content["taken"] in {each["name"] for each in content["attempts"]}
    assert set(content["left_out"]) == {"head_steering", "layer_swap", "task_arithmetic"}
    assert (output / "model" / "model.safetensors").is_file()
    assert (output / "evaluation" / "report" / "index.html").is_file()
    assert "taken:" in result.output
    (choosing,) = load_choosing(output / "evaluation")
    assert choosing.taken is not None
    assert {each.name for each in choosing.tried if not each.taken} < {each["name"] for each in content["attempts"]}
    assert 'id="choosing"' in (output / "evaluation" / "report" / "index.html").read_text(encoding="utf-8")
    rows = json.loads((output / "evaluation" / "results.json").read_text(encoding="utf-8"))
    assert "capability.knowledge" in {row["metric"] for row in rows}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert json.loads((output / RESULT).read_text(encoding="utf-8"))["taken"] == content["taken"]


def test_nothing_helped_and_why(tmp_path: Path) -> None:
    """The safety expert refuses everything already: there is nothing to gain."""
    output = tmp_path / "repaired"
    found = repair(
        Given(model=MEMBERS["safety"], languages=("qab",), output=output),
        output,
        trials=1,
        controls=0,
    )
    assert found.taken is None
    assert "none is shown to help within the constraints" in found.choice.reason
    assert not (output / "model").exists()
    content = json.loads((output / RESULT).read_text(encoding="utf-8"))
    assert (content["recipe"], content["taken"]) == (None, None)
    assert [each["name"] for each in content["attempts"]] == ["sparse_edit"]


def test_no_time_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no minutes"):
        repair(given(tmp_path), tmp_path / "out", minutes=0)
