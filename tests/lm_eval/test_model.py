"""The model behind lm-eval's interface: the numbers of lm-eval's own model, and a cache that knows the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.data.exams import load_questions
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.cache import Cache
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.lm_eval.families import families
from polysafe.lm_eval.model import HarnessModel, cut, one_message
from polysafe.lm_eval.tasks import build
from polysafe.probe.likelihood import Likelihood, Scorer
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import Template, load_tokenizer
from tests import exams
from tests.byte_level import save_byte_model

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
MAX_TOKENS = 24


@dataclass(frozen=True)
class Loaded:
    model: LoadedModel
    tokenizer: PreTrainedTokenizerBase
    data: Path

    def by_lm_eval(self) -> HFLM:
        """lm-eval's own model, with a tokenizer of its own: it would give ours a padding token."""
        tokenizer = load_tokenizer(self.model.source.checkpoint.root)
        tokenizer.pad_token, tokenizer.eos_token = "<s>", tokenizer.convert_ids_to_tokens(2)
        return HFLM(pretrained=self.model.model, tokenizer=tokenizer, batch_size=3)

    def asked(self, template: Template, store: Any, **given: Any) -> HarnessModel:
        generator = LocalGenerator(
            self.model, self.tokenizer, Sampling(max_tokens=MAX_TOKENS), template=template, unreadable="empty"
        )
        parts = {"generator": generator, "scorer": Scorer(self.model, self.tokenizer, template=template), **given}
        return HarnessModel(store=store, **parts)

    def tasks(self, name: str, chat: bool) -> dict[str, Any]:
        """lm-eval's tasks, with a budget of their own that its own model listens to."""
        ((family, _),) = families([name]).values()
        built = build(family, load_questions(family.exam, data=self.data), chat=chat)
        for leaf in built.leaves:
            if family.output == "generation":
                leaf.task.set_config("generation_kwargs", {"max_gen_toks": MAX_TOKENS}, update=True)
        return {leaf.name: leaf.task for leaf in built.leaves}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    torch.set_num_threads(1)
    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    data = exams.all_of_them(tmp_path_factory.mktemp("data"))
    with open_source(folder) as source:
        yield Loaded(load_model(source), load_tokenizer(folder), data)


def by_lm_eval(model: Any, tasks: dict[str, Any], chat: bool) -> tuple[dict[str, Any], list[Any]]:
    """Results and samples of lm-eval's own loop."""
    found = evaluate(model, {"tasks": tasks}, bootstrap_iters=0, apply_chat_template=chat, fewshot_as_multiturn=False)
    samples = [sample for name in tasks for sample in found["samples"][name]]
    return found["results"], samples


@pytest.mark.parametrize("template", ["raw", "chat"])
@pytest.mark.parametrize("name", ["belebele", "xcopa"])
def test_likelihoods_are_those_of_lm_eval(loaded: Loaded, tmp_path: Path, name: str, template: Template) -> None:
    theirs = loaded.by_lm_eval()
    chat = template == "chat"
    with Cache(tmp_path / "cache.sqlite") as store:
        ours, mine = by_lm_eval(loaded.asked(template, store), loaded.tasks(name, chat), chat)
        expected, other = by_lm_eval(theirs, loaded.tasks(name, chat), chat)
    assert [one["resps"] for one in mine] != []
    for one, reference in zip(mine, other, strict=True):
        for ((total, greedy),), ((theirs_total, theirs_greedy),) in zip(one["resps"], reference["resps"], strict=True):
            assert total == pytest.approx(theirs_total, abs=1e-4)
            assert greedy == theirs_greedy
    assert {task: each["acc,none"] for task, each in ours.items()} == {
        task: each["acc,none"] for task, each in expected.items()
    }


@pytest.mark.parametrize("template", ["raw", "chat"])
def test_greedy_answers_are_those_of_lm_eval(loaded: Loaded, tmp_path: Path, template: Template) -> None:
    theirs = loaded.by_lm_eval()
    chat = template == "chat"
    with Cache(tmp_path / "cache.sqlite") as store:
        ours, mine = by_lm_eval(loaded.asked(template, store), loaded.tasks("mgsm", chat), chat)
    expected, other = by_lm_eval(theirs, loaded.tasks("mgsm", chat), chat)
    assert [one["resps"] for one in mine] == [one["resps"] for one in other]
    assert any(one["resps"][0][0] for one in mine)
    assert (
        ours["mgsm_direct_bn"]["exact_match,flexible-extract"]
        == (expected["mgsm_direct_bn"]["exact_match,flexible-extract"])
    )


def request(*arguments: Any) -> Instance:
    return Instance(request_type="any", doc={}, arguments=arguments, idx=0)


class Counting:
    """Counts what a generator or scorer is asked, and stops after some."""

    def __init__(self, inner: Any, stop_after: int | None = None) -> None:
        self.inner, self.identity, self.asked = inner, inner.identity, 0
        self._stop_after = stop_after

    def _watch(self, found: Iterator[Any]) -> Iterator[Any]:
        for done, one in enumerate(found):
            if done == self._stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            yield one

    def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
        return self._watch(self.inner.score(requests))

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        return self._watch(self.inner.generate(asks))


def counting(inner: Any, stop_after: int | None = None) -> Any:
    """The same in the place of a generator or a scorer."""
    return Counting(inner, stop_after)


def test_an_interrupted_run_asks_only_for_what_is_left(loaded: Loaded, tmp_path: Path) -> None:
    scorer = Scorer(loaded.model, loaded.tokenizer, template="raw", batch_tokens=1)
    generator = LocalGenerator(loaded.model, loaded.tokenizer, Sampling(max_tokens=4), template="raw", batch_tokens=1)
    choices = [request(f"Question {row}:", f" {letter}") for row in range(3) for letter in "AB"]
    texts = [request("x" * row, {"until": ["\n"]}) for row in range(1, 6)]
    with Cache(tmp_path / "cache.sqlite") as store:
        stopped = HarnessModel(counting(generator, 2), counting(scorer, 4), store)
        for ask, what in ((stopped.loglikelihood, choices), (stopped.generate_until, texts)):
            with pytest.raises(KeyboardInterrupt):
                ask(what)
        left_scores, left_texts = counting(scorer), counting(generator)
        resumed = HarnessModel(left_texts, left_scores, store)
        scores, answers = resumed.loglikelihood(choices), resumed.generate_until(texts)
        assert (left_scores.asked, left_texts.asked) == (2, 3)
        again = HarnessModel(counting(generator, 0), counting(scorer, 0), store)
        assert (again.loglikelihood(choices), again.generate_until(texts)) == (scores, answers)
    with Cache(tmp_path / "other.sqlite") as store:
        fresh = HarnessModel(generator, scorer, store)
        found = fresh.loglikelihood(choices)
        assert [total for total, _ in found] == pytest.approx([total for total, _ in scores], abs=1e-5)
        assert fresh.generate_until(texts) == answers


def test_another_model_has_other_entries(loaded: Loaded, tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "other", seed=1)
    with open_source(folder) as source, Cache(tmp_path / "cache.sqlite") as store:
        other = Loaded(load_model(source), load_tokenizer(folder), loaded.data)
        what = [request("Question:", " A")]
        (one,), (two,) = (each.asked("raw", store).loglikelihood(what) for each in (loaded, other))
        assert one != two
        assert len(store) == 2
        loaded.asked("chat", store).loglikelihood(what)
        assert len(store) == 3


def test_a_broken_model_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken:
        identity: Mapping[str, Any] = MappingProxyType({"weights": "x"})

        def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
            yield from ((place, Likelihood(float("nan"), False, "t")) for place in range(len(requests)))

    with Cache(tmp_path / "cache.sqlite") as store:
        model = HarnessModel(Counting(Broken()), Broken(), store)
        ((total, _),) = model.loglikelihood([request("a", "b")])
        assert total != total  # noqa: PLR0124 — NaN
        assert len(store) == 0


def test_a_served_model_says_no_likelihood(loaded: Loaded, tmp_path: Path) -> None:
    with Cache(tmp_path / "cache.sqlite") as store, pytest.raises(RecipeError, match="does not say how probable"):
        loaded.asked("chat", store, scorer=None).loglikelihood([request("a", "b")])


def test_answers_that_do_not_come(loaded: Loaded, tmp_path: Path) -> None:
    class Silent:
        identity: Mapping[str, Any] = MappingProxyType({"weights": "x", "sampling": 0})

        def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
            yield from ()

    with Cache(tmp_path / "cache.sqlite") as store, pytest.raises(DataError, match="1 answers did not come"):
        loaded.asked("chat", store, generator=Silent()).generate_until([request("a", {"until": []})])


def test_answers_end_at_the_first_stop_sequence() -> None:
    assert cut("18\nQuestion: 3", ("Question:", "\n\n")) == "18\n"
    assert cut("18", ()) == "18"


def test_conversations_become_one_message() -> None:
    system = {"role": "system", "content": "About birds.\n\n"}
    user = {"role": "user", "content": "Which?"}
    assert one_message([user]) == "Which?"
    assert one_message([system, user]) == "About birds.\n\nWhich?"
    with pytest.raises(RecipeError, match="begins the model's answer"):
        one_message([user], add_generation_prompt=False)
    with pytest.raises(RecipeError, match="begins the model's answer"):
        one_message([user, {"role": "assistant", "content": "A"}, user])
