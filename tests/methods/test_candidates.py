"""In which order candidates are tried, how far that is, and what an interrupted search need not ask again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from polysafe.cli.display import Lines
from polysafe.methods.base import Work
from polysafe.methods.candidates import STAGE, Candidates, choose_layers
from polysafe.methods.constraints import Constrained
from polysafe.methods.validation import BEFORE, PROMPTS, Standing, Trial, Weighted
from polysafe.probe.model import LoadedModel
from polysafe.progress import reporting, tell
from tests.methods.test_constraints import LIMITS, Scripted, judged

WORK = Work(PROMPTS, "model", 10, 2, 7)
MODEL = cast("LoadedModel", "before")


class Kept(dict[str, Any]):
    """Keeps values as JSON does."""

    def put(self, name: str, value: Any) -> None:
        self[name] = json.loads(json.dumps(value, allow_nan=False))


def chosen(
    scores: Mapping[tuple[tuple[int, ...], float], float], max_layers: int
) -> list[tuple[tuple[int, ...], float]]:
    def attempt(layers: tuple[int, ...], gain: float) -> Trial:
        return Trial({"layers": layers, "gain": gain}, scores.get((layers, gain), 2.0))

    trials = choose_layers((0, 1, 2), (1.0, 3.0), max_layers, attempt, Candidates(WORK))
    return [(trial.setting["layers"], trial.setting["gain"]) for trial in trials]


def test_one_layer_tries_every_layer_with_every_gain() -> None:
    assert chosen({}, 1) == [((layer,), gain) for layer in (0, 1, 2) for gain in (1.0, 3.0)]


def test_layers_are_added_while_that_helps() -> None:
    scores = {((1,), 3.0): 1.0, ((1, 2), 3.0): 0.8, ((0, 1, 2), 3.0): 0.9}
    tried = chosen(scores, 3)
    assert tried[6:] == [((0, 1), 3.0), ((1, 2), 3.0), ((0, 1, 2), 3.0)]
    assert chosen(scores, 2)[6:] == [((0, 1), 3.0), ((1, 2), 3.0)]
    assert chosen({((1,), 3.0): 1.0}, 3)[6:] == [((0, 1), 3.0), ((1, 2), 3.0)]


class Dead(Scripted):
    """Cannot be asked."""

    def read(self, model: LoadedModel, languages: Any) -> Any:
        raise AssertionError(f"{model} is asked again")


def test_what_was_tried_before_an_interruption_is_not_tried_again() -> None:
    kept = Kept()
    readings = {"before": judged(), "a": judged(sw=30), "b": judged(sw=40)}
    whole = Candidates(WORK)
    judging = whole.judging(Constrained(Scripted(readings), LIMITS), MODEL, ["sw"])
    wanted = whole.tried({name: lambda name=name: judging({"layers": [name]}, name) for name in "ab"})  # type: ignore[misc]

    first = Candidates(WORK, kept)
    judging = first.judging(Constrained(Scripted(readings), LIMITS), MODEL, ["sw"])

    def stopped() -> Trial:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.tried({"a": lambda: judging({"layers": ["a"]}, cast("LoadedModel", "a")), "b": stopped})
    assert list(kept) == [BEFORE, "a"]

    validation = Constrained(Dead({}), LIMITS)
    again = Candidates(WORK, kept)
    later = again.judging(validation, MODEL, ["sw"])
    assert validation.meter.notes == ("a note",)
    validation.meter.read = Scripted(readings).read  # type: ignore[method-assign]
    found = again.tried({name: lambda name=name: later({"layers": [name]}, name) for name in "ab"})  # type: ignore[misc]
    assert found == wanted
    assert [trial.plain() for trial in found] == [trial.plain() for trial in wanted]
    later.require(found[1], found)


@pytest.mark.parametrize(
    "trial",
    [
        Trial({"layers": [1], "gain": 0.1}, 0.5, {"x": Standing(1.0, 0.0, 1 / 3)}),
        Trial({"fraction": None, "strength": 0.3}, math.inf, evidence={"score": 0.1, "losses": [{"low": None}]}),
        Trial({"layers": [1], "gain": 2.0}, problem="no neuron"),
    ],
)
def test_a_trial_comes_back_from_json(trial: Trial) -> None:
    assert Trial.from_json(json.loads(json.dumps(trial.to_json(), allow_nan=False))) == trial


class Rates:
    """A validator that knows the rates of two models."""

    languages = ("x",)

    def __init__(self, **refused: float) -> None:
        self.refused = refused

    def __call__(self, model: LoadedModel, languages: Sequence[str]) -> dict[str, Standing]:
        return {"x": Standing(self.refused[cast("str", model)], 0.0, 1.0)}


def test_weighted_candidates_remember_the_unedited_model() -> None:
    kept, after = Kept(), cast("LoadedModel", "after")
    first = Weighted(Rates(before=0.1, after=0.7)).of(MODEL, ["x"], kept=kept)
    later = Weighted(Rates(after=0.7)).of(MODEL, ["x"], kept=kept)
    assert later({}, after) == first({}, after)


def asking(prompts: int, seconds: float, clock: list[float]) -> Trial:
    """A trial that takes some time to make and some for every prompt, with stages of its own."""
    clock[0] += 2 * seconds
    tell("activations", 1, 1)
    for done in range(1, prompts + 1):
        clock[0] += seconds
        tell(PROMPTS, done, prompts)
    return Trial({"layers": [0], "gain": 1.0}, 1.0)


@pytest.mark.parametrize("known", [0, 3])
def test_the_time_left_is_that_of_all_candidates(known: int) -> None:
    """Within a factor of two from the first trial on, and only from what is asked now."""
    clock, lines, told = [0.0], list[str](), list[tuple[str, int, int]]()
    kept = Kept({BEFORE: {}, **{f"c{number}": Trial({}, 1.0).to_json() for number in range(known)}} if known else {})
    display = Lines(lines.append, clock=lambda: clock[0])

    def step(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        display.step(stage, done, total)

    class Asked:
        def of(self, *_: object) -> Any:
            asking(10, 1.0, clock)

    with reporting(step):
        candidates = Candidates(WORK, kept)
        candidates.judging(cast("Any", Asked()), MODEL, ["x"])
        began = clock[0] if known else 0.0
        candidates.expect(6)
        candidates.tried({f"c{number}": lambda: asking(10, 1.0, clock) for number in range(6)})
    assert {stage for stage, *_ in told} == {STAGE}
    assert {total for *_, total in told} == {70}
    assert told[-1] == (STAGE, 70, 70)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    whole = clock[0] - began
    assert lines
    for line in lines[1:-1]:
        done = int(line.split()[2].split("/")[0])
        left = line.rsplit("about ", 1)[1].removesuffix(" left")
        seconds = float(left.split()[0]) * (60 if "min" in left else 1)
        really = whole * (70 - done) / (70 - 10 * known - 10 * bool(known))
        assert really / 2 <= seconds <= 2 * really, line


def test_a_further_layer_is_expected_before_it_is_tried() -> None:
    told = list[tuple[str, int, int]]()
    with reporting(lambda *step: told.append(step)):
        candidates = Candidates(Work(PROMPTS, "model", 1, 1, 4))

        def attempt(layers: tuple[int, ...], gain: float) -> Trial:
            return Trial({"layers": layers, "gain": gain}, 1.0 / len(layers))

        choose_layers((0, 1, 2), (1.0,), 3, attempt, candidates)
    assert [total for *_, total in told] == [5] * 6 + [5] * 4 + [6] * 2
    assert told[-1] == (STAGE, 6, 6)
