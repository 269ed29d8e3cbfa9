"""How layers of a sparse edit are ranked where refusal openings are known: by what an edit of each alone does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from polysafe.data.anchors import Anchors, ParallelPrompts
from polysafe.methods.constraints import OVER_REFUSAL, REFUSED
from polysafe.methods.refusal_meter import RefusalMeter
from polysafe.methods.sparse_edit.choice import effect_prompts
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.probe.model import edited, load_model
from tests.byte_level import save_byte_model
from tests.methods.conftest import Opener

ROWS = 40


def rows(kind: str, text: str, count: int = ROWS) -> ParallelPrompts:
    names = tuple(f"{kind}-{number}" for number in range(count))
    return ParallelPrompts(
        names, {code: tuple(f"{text} {code} {name}" for name in names) for code in ("en", "sw", "zh")}
    )


def write(folder: Path, kind: str, prompts: ParallelPrompts) -> str:
    lines = [",".join(("id", *prompts.texts))]
    lines += [",".join((name, *each)) for name, *each in zip(prompts.ids, *prompts.texts.values(), strict=True)]
    (folder / f"{kind}.csv").write_text("\n".join(lines), encoding="utf-8")
    return str(folder / f"{kind}.csv")


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return Anchors(rows("harmful", "please do harm"), rows("harmless", "bake a loaf"))


@pytest.fixture
def sources(opened: Opener, tmp_path: Path) -> Sources:
    torch.set_num_threads(1)
    return opened({"model": save_byte_model(tmp_path / "model")})


def method(folder: Path, anchors: Anchors, **options: Any) -> SparseEdit:
    fields = {
        "model": "model",
        "languages": ("sw", "zh"),
        "anchors": {
            "harmful": write(folder, "harmful", anchors.harmful),
            "harmless": write(folder, "harmless", anchors.harmless),
        },
        "layers": ("auto",),
        "template": "raw",
        "tau_mag": 0.5,
        "tau_stat": 0.2,
        "cap": 0.5,
        **options,
    }
    return SparseEdit.model_validate(fields)


def test_the_score_is_the_rise_of_harmful_prompts_beyond_that_of_harmless_ones(
    sources: Sources, anchors: Anchors, tmp_path: Path
) -> None:
    edit = method(tmp_path, anchors).fit(sources)
    ranking = edit.provenance[0].evidence["ranking"]
    assert list(ranking) == ["0", "1"]
    held_out = anchors.harmful.split(0.1)[1]
    harmless = anchors.harmless.select(range(len(held_out)))
    loaded, reader = load_model(sources["model"]), {"model": sources["model"].reader}
    place = [anchors.harmful.ids.index(name) for name in held_out.ids]
    meter = RefusalMeter(effect_prompts(anchors, place, ("sw", "zh")), template="raw")
    assert meter.prompts == 2 * (len(held_out) + len(harmless)) > 0
    before = meter.read(loaded, ("sw", "zh"))
    for layer in (0, 1):
        alone = method(tmp_path, anchors, layers=(layer,)).fit(sources)
        with edited(loaded, alone, reader) as model:
            after = meter.read(model, ("sw", "zh"))
        rises = {
            metric: sum(
                sum(after[code, metric][item] - value for item, value in before[code, metric].items())
                / len(before[code, metric])
                for code in ("sw", "zh")
            )
            / 2
            for metric in (REFUSED, OVER_REFUSAL)
        }
        assert ranking[str(layer)] == pytest.approx(rises[REFUSED] - rises[OVER_REFUSAL], abs=1e-5)
    best = max(ranking, key=lambda layer: ranking[layer])
    assert edit.provenance[0].evidence["chosen"]["layers"] == [int(best)]
    assert any("more likely to be refused" in note for note in edit.provenance[0].notes)


def test_what_is_asked_takes_no_part_in_the_fit_and_needs_openings(anchors: Anchors) -> None:
    asked = effect_prompts(anchors, (3, 5), ("sw", "zh"))
    assert [prompt.parallel for prompt in asked if (prompt.kind, prompt.language) == ("harmful", "sw")] == [
        "harmful-3",
        "harmful-5",
    ]
    assert sum(prompt.kind == "harmless" for prompt in asked) == 4
    assert effect_prompts(anchors, (3,), ("sw", "qaa")) == []
    assert effect_prompts(anchors, (), ("sw",)) == []


def test_without_held_out_anchors_activations_alone_are_looked_at(
    sources: Sources, anchors: Anchors, tmp_path: Path
) -> None:
    edit = method(tmp_path, anchors, held_out=0.0).fit(sources)
    assert any("fall shortest" in note for note in edit.provenance[0].notes)
