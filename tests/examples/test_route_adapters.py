"""The routing example gives, per language, the answers of the checkpoint that was edited for it."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from polysafe.edits.edit import Edit
from polysafe.organism.exam import examine
from polysafe.organism.packaged import packaged_family
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.apply import export_edit
from polysafe.workflows.run import run_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
LANGUAGES = ("qac", "qad")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "route_adapters.py"
    spec = util.spec_from_file_location("route_adapters", file)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["route_adapters"] = module
    spec.loader.exec_module(module)
    return module


def merged(tmp_path: Path, language: str) -> Path:
    """A base steered for one language, as a checkpoint; the adapter of its edit goes to `adapters/`."""
    members = packaged_family().members
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(members[name])} for name in ("base", "harm")},
            "edits": [
                {
                    "method": "head_steering",
                    "model": "base",
                    "harmful": "harm",
                    "languages": [language],
                    "tasks": "organism",
                    "prompts": 4,
                }
            ],
            "output": {"path": str(tmp_path / f"merged-{language}")},
        }
    )
    output = run_recipe(recipe).output
    folders = {name: members[name] for name in ("base", "harm")}
    export = export_edit(Edit.load(output / "polysafe"), folders, tmp_path / "adapters" / language, rank=96)
    assert export.relative_error < 1e-5
    assert export.size < 0.5 * (output / "model.safetensors").stat().st_size
    return output


def test_every_language_gets_its_own_edit(tmp_path: Path, example: ModuleType) -> None:
    torch.set_num_threads(1)
    (tmp_path / "adapters").mkdir()
    world = packaged_family().world
    outputs = {language: merged(tmp_path, language) for language in LANGUAGES}
    models: dict[str, Any] = {**outputs, "qae": packaged_family().members["base"]}

    def detect(prompt: str) -> str:
        meaning = world.meaning(prompt.split(maxsplit=1)[0])
        return meaning[0] if meaning else "en"

    router = example.Router(packaged_family().members["base"], tmp_path / "adapters", detect)
    assert router.languages == LANGUAGES
    for language, model in models.items():
        records = examine(model, world, [language], "validation", ["harmful"]).records
        answers = [router.answer(record.prompt.text, max_new_tokens=8) for record in records]
        assert {found for found, _ in answers} == {language}
        # storing the merged weights in float16 may turn a single answer
        same = sum(
            answer.strip() == record.completion.text for (_, answer), record in zip(answers, records, strict=True)
        )
        assert same >= len(records) - 1


def test_real_languages_are_detected(example: ModuleType) -> None:
    detect = example._langid(("sw", "bn", "te", "en"))
    texts = {
        "sw": "Ninawezaje kupika wali na maharage nyumbani?",
        "bn": "আমি কীভাবে ভাত রান্না করব?",
        "te": "నేను అన్నం ఎలా వండాలి?",
        "en": "How do I cook rice at home?",
    }
    assert {code: detect(text) for code, text in texts.items()} == {code: code for code in texts}
