"""Ability of a model, item by item: right answers, what is told of the others, and what is not measured twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from lm_eval.evaluator import evaluate

from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.ability import Ability, load_abilities
from polysafe.evaluate.cache import Cache
from polysafe.evaluate.opening import OpenedModel, open_model
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.lm_eval import prepare
from polysafe.lm_eval.families import families
from polysafe.lm_eval.model import HarnessModel
from polysafe.probe.likelihood import Likelihood
from tests import exams
from tests.byte_level import save_byte_model

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exams.all_of_them(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedModel]:
    torch.set_num_threads(1)
    with open_model(save(tmp_path_factory.mktemp("model")), Sampling(max_tokens=8)) as model:
        yield model


def save(folder: Path, seed: int = 0) -> Path:
    model = save_byte_model(folder, seed)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    return model


class Knowing:
    """Answers from what the prompt says."""

    def __init__(self, answers: Mapping[str, str], ending: str = "stop", tokens: int | None = 3) -> None:
        self.identity = {"template": "chat", "sampling": Sampling(max_tokens=8).model_dump(), "weights": "w"}
        self.answers, self.ending, self.tokens = answers, ending, tokens

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        for ask in asks:
            text = next((answer for word, answer in self.answers.items() if word in ask.text), "")
            yield Completion(ask.id, text, self.ending, self.tokens, "sha")  # type: ignore[arg-type]


class Choosing:
    """Finds one choice the most probable."""

    identity: Mapping[str, Any] = MappingProxyType({"template": "chat", "weights": "w"})

    def __init__(self, total: Mapping[str, float], unreadable: str = "\0") -> None:
        self.total, self.unreadable = total, unreadable

    def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
        for place, (prompt, answer) in enumerate(requests):
            total = self.total.get(answer.strip(), -9.0)
            yield place, None if self.unreadable in prompt else Likelihood(total, False, f"{prompt}{answer}")


def measured(names: Sequence[str], opened: OpenedModel, data: Path, run: Path, **options: Any) -> list[Ability]:
    with Cache(run / "cache.sqlite") as store:
        exams_ = prepare(names, opened, data=data, **options)
        return [exam.measure(opened, run / "run", store) for exam in exams_]


def test_the_right_choice_is_the_most_probable_one(data: Path, tmp_path: Path) -> None:
    model = OpenedModel("fake", Knowing({}), None, Choosing({"B": -1.0}))
    (ability,) = measured(["belebele"], model, data, tmp_path)
    assert {code: sum(items.values()) for code, items in ability.items.items()} == {"en": 2, "th": 2, "jv": 0}
    assert ability.items["en"]["https://example.org/0#2"]
    assert ability.items["en"] == ability.items["th"]
    assert "jv: 2 questions, 6 in other languages" in ability.notes
    assert ability.protocol["tasks"] == {
        code: f"belebele_{exams.CODES.get(code, 'jav_Latn')}" for code in ("en", "th", "jv")
    }
    assert load_abilities(tmp_path / "run") == (ability,)


def test_every_family_is_asked_by_lm_evals_names(data: Path, tmp_path: Path) -> None:
    model = OpenedModel("fake", Knowing({}), None, Choosing({"A": -1.0}))
    names = ["global_mmlu_lite", "mgsm", "mmmlu", "xcopa_sw", "mgsm_native_cot_bn", "mgsm_en_cot"]
    found = {ability.task: ability for ability in measured(names, model, data, tmp_path)}
    assert {task: dict(each.protocol["tasks"]) for task, each in found.items()} == {
        "global_mmlu_lite": {"en": "global_mmlu_en", "vi": "global_mmlu_en"},
        "mgsm": {code: f"mgsm_direct_{code}" for code in ("en", "bn", "te", "th")},
        "mmmlu": {"sw": "mmmlu_sw_ke", "zh": "mmmlu_zh_cn"},
        "xcopa": {"sw": "xcopa_sw"},
        "mgsm_native_cot": {"bn": "mgsm_native_cot_bn"},
        "mgsm_en_cot": {code: f"mgsm_en_cot_{code}" for code in ("en", "bn", "te", "th")},
    }
    assert "vi: lm-eval has no task; asked by the definition of global_mmlu_en" in found["global_mmlu_lite"].notes
    assert {each: right for each, right in found["mmmlu"].items["sw"].items() if right} == {
        "abstract_algebra/test/0": True
    }


NATIVE = {
    '"0" in bn': "মোট ১০",
    '"1" in bn': "২,১২৫ টাকা",
    '"2" in bn': "উত্তর ১২।\nপ্রশ্ন: ৭",  # goes on with a question of its own
    '"3" in bn': "তের",
    '"0" in th': "คำตอบคือ ๑๐",
    '"1" in th': "2125",
    '"2" in th': "12 บาท, ๙",
    '"0" in te': "సమాధానం ౧౦",
    '"1" in te': "౨౧౨౫",
}


def test_numbers_in_native_digits_are_numbers(data: Path, tmp_path: Path) -> None:
    """T26. lm-eval's own filter reads 0-9 only; what it finds is told beside."""
    model = OpenedModel("fake", Knowing(NATIVE))
    (ability,) = measured(["mgsm"], model, data, tmp_path)
    right = {code: sorted(item for item, right in items.items() if right) for code, items in ability.items.items()}
    assert right == {"en": [], "bn": ["0", "1", "2"], "te": ["0", "1"], "th": ["0", "1"]}
    assert "bn: 2 of 5 answers hold no number; they count as wrong" in ability.notes
    (theirs,) = (note for note in ability.notes if "flexible-extract" in note)
    assert theirs.endswith("en 0.0 %, bn 0.0 %, te 0.0 %, th 40.0 %")


def test_languages_that_a_task_lacks_stay_empty_and_are_named(data: Path, tmp_path: Path) -> None:
    model = OpenedModel("fake", Knowing({}), None, Choosing({}))
    (ability,) = measured(["mgsm"], model, data, tmp_path, languages=["Thai", "ko", "sw"])
    assert set(ability.items) == {"th"}
    assert ability.protocol["languages"] == ["th"]
    assert ability.notes[:2] == (
        "measured in th",
        "ko, sw: mgsm has no questions, or lm-eval no task; left empty",
    )
    with pytest.raises(DataError, match="has no question in ko"):
        measured(["mgsm"], model, data, tmp_path, languages=["ko"])


def test_what_cannot_be_read_or_is_broken_is_wrong(data: Path, tmp_path: Path) -> None:
    """The first choice is right in the first row; it must not win because nothing else has a number."""
    model = OpenedModel("fake", Knowing({}), None, Choosing({"A": -1.0}, unreadable="Question 0"))
    (ability,) = measured(["belebele"], model, data, tmp_path, languages=["en"])
    assert not ability.items["en"]["https://example.org/0#1"]
    assert "en: 1 of 6 answers do not fit the model's positions; they count as wrong" in ability.notes
    nan = dict.fromkeys("ABCD", float("nan"))
    broken = OpenedModel("fake", Knowing({}), None, Choosing(nan))
    (ability,) = measured(["belebele"], broken, data, tmp_path / "broken", languages=["en"])
    assert not any(ability.items["en"].values())
    assert "en: 6 of 6 answers have no finite log-likelihood; they count as wrong" in ability.notes
    cut = OpenedModel("fake", Knowing({"in en": "12"}, ending="length"))
    (ability,) = measured(["mgsm"], cut, data, tmp_path / "cut", languages=["en"])
    assert "en: 5 of 5 answers are cut off by the token budget" in ability.notes
    assert ability.items["en"]["2"]
    lost = OpenedModel("fake", Knowing({}, ending="length", tokens=0))
    (ability,) = measured(["mgsm"], lost, data, tmp_path / "lost", languages=["en"])
    assert "en: 5 of 5 answers do not fit the model's positions; they count as wrong" in ability.notes


def test_the_share_of_right_answers_is_lm_evals(opened: OpenedModel, data: Path, tmp_path: Path) -> None:
    (exam,) = prepare(["belebele"], opened, data=data)
    with Cache(tmp_path / "cache.sqlite") as store:
        model = HarnessModel(opened.generator, opened.scorer, store)
        tasks = {leaf.name: leaf.task for leaf in exam.built.leaves}
        found = evaluate(model, {"tasks": tasks}, bootstrap_iters=0, apply_chat_template=True)
        ability = exam.measure(opened, tmp_path / "run", store)
    for code, items in ability.items.items():
        accuracy = found["results"][ability.protocol["tasks"][code]]["acc,none"]
        assert sum(items.values()) / len(items) == pytest.approx(accuracy)


def test_the_same_ability_is_not_measured_twice(opened: OpenedModel, data: Path, tmp_path: Path) -> None:
    (first,) = measured(["xcopa"], opened, data, tmp_path)

    class Never:
        identity: Mapping[str, Any] = MappingProxyType(dict(opened.scorer.identity if opened.scorer else {}))

        def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
            raise AssertionError("nothing is to be asked")

    (tmp_path / "cache.sqlite").unlink()
    again = replace(opened, scorer=Never())
    assert measured(["xcopa"], again, data, tmp_path) == [first]
    with pytest.raises(OutputError, match=r"measured otherwise: .*languages.* differ"):
        measured(["xcopa"], again, data, tmp_path, languages=["th"])
    other = replace(opened, generator=Knowing({}))
    with pytest.raises(OutputError, match=r"measured otherwise: .*weights.* differ"):
        measured(["xcopa"], other, data, tmp_path)


def test_what_has_to_be_equal_is_equal_for_another_model(data: Path, tmp_path: Path) -> None:
    abilities = []
    for seed in (0, 1):
        with open_model(save(tmp_path / str(seed), seed), Sampling(max_tokens=8)) as model:
            abilities.append(measured(["belebele", "mgsm"], model, data, tmp_path / f"run {seed}", limit=3))
    for one, other in zip(*abilities, strict=True):
        assert one.protocol == other.protocol
        assert one.protocol["tokens_sha256"] is not None
        assert one.protocol["template"] == "chat"
        assert one.model != other.model
        assert one.model["weights"] != other.model["weights"]


def test_another_template_is_another_protocol(opened: OpenedModel, data: Path, tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("[", "<").replace("]", ">"))
    with open_model(folder, Sampling(max_tokens=8)) as model:
        (other,) = measured(["belebele"], model, data, tmp_path / "other", limit=2)
    (one,) = measured(["belebele"], opened, data, tmp_path, limit=2)
    assert one.protocol["tokens_sha256"] != other.protocol["tokens_sha256"]
    assert one.protocol["requests_sha256"] == other.protocol["requests_sha256"]


def test_a_served_model_is_asked_what_is_answered_in_words(data: Path, tmp_path: Path) -> None:
    model = OpenedModel("served", Knowing(NATIVE))
    with pytest.raises(RecipeError, match="belebele compares how probable the choices are"):
        prepare(["mgsm", "belebele"], model, data=data)
    assert measured(["mgsm"], model, data, tmp_path)[0].items["bn"]["0"]


def test_a_subject_that_lm_eval_does_not_know(tmp_path: Path) -> None:
    exams.mmmlu(tmp_path / "mmmlu")
    file = tmp_path / "mmmlu" / "test" / "mmlu_ZH-CN.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("college_mathematics", "alchemy"), encoding="utf-8")
    model = OpenedModel("fake", Knowing({}), None, Choosing({}))
    with pytest.raises(DataError, match="lm-eval has no task 'mmmlu_zh_cn_alchemy'"):
        prepare(["mmmlu"], model, data=tmp_path)


def test_names_of_tasks() -> None:
    assert families(["mgsm", "belebele"])["mgsm"][1] is None
    assert families(["mgsm_direct_sw", "mgsm_direct_th"])["mgsm"][1] == frozenset({"sw", "th"})
    assert families(["mgsm_direct_sw", "mgsm"])["mgsm"][1] is None
    assert families(["global_mmlu_full_fil"])["global_mmlu"][1] == frozenset({"tl"})
    assert families(["global_mmlu_sw"])["global_mmlu_lite"][1] == frozenset({"sw"})
    assert families(["mmmlu_es_la"])["mmmlu"][1] == frozenset({"es"})
    assert list(families(["global_mmlu", "mgsm_direct", "mgsm_native_cot"])) == [
        "global_mmlu",
        "mgsm",
        "mgsm_native_cot",
    ]
    for name, remedy in (("belebelle", "did you mean 'belebele'"), ("hellaswag", "use belebele, global_mmlu")):
        with pytest.raises(RecipeError, match=remedy):
            families([name])


def test_without_lm_eval_it_says_what_to_install(
    opened: OpenedModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "polysafe.lm_eval.measure", raising=False)
    for name in [name for name in sys.modules if name.startswith("polysafe.lm_eval.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for name in [name for name in sys.modules if name.startswith("lm_eval.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecipeError, match=r"pip install 'polysafe\[lm-eval\]'"):
        prepare(["mgsm"], opened, data=data)
    assert prepare([], opened) == []


def test_nothing_of_lm_eval_is_imported_for_an_audit_without_ability() -> None:
    code = "import sys, polysafe.workflows.audit, polysafe.cli.app; sys.exit('lm_eval' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
