"""The points of a search as Optuna keeps them, and whether a journal holds what a search of this space wrote.

A journal lies in a folder, so anything may be in it. It is looked at once, when it is opened: a point that no search
of this space could have written would otherwise be compared with others, or chosen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.errors import DataError, OutputError
from polysafe.search.points import Outcome
from polysafe.search.space import Choices, Number, Parameter, Some, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

OUTCOME, PROBLEM, EXCESS = "outcome", "problem", "excess"
"""What is kept of a point that was tried: what came of it, why it cannot be made, how far it is beyond limits."""
AGAIN = "name another folder, or delete this one"
_FIXED = "fixed_params"
_NONE = "null"


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a point was tried."""
    return OUTCOME in trial.user_attrs or PROBLEM in trial.user_attrs


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What Optuna draws from, by the names that it knows: those of parameters, and of the members of subsets."""
    return {name: found for each in space.parameters for name, found in _distributions(each)}


def _distributions(parameter: Parameter) -> Iterator[tuple[str, BaseDistribution]]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    name = parameter.name
    match parameter.domain:
        case Number() as domain if parameter.whole:
            yield name, IntDistribution(int(domain.low), int(domain.high), domain.log, int(domain.step or 1))
        case Number() as domain:
            yield name, FloatDistribution(domain.low, domain.high, domain.log, domain.step)
        case Choices(choices=choices):
            yield name, CategoricalDistribution([json.dumps(each) for each in choices])
        case Some() as domain if parameter.size is not None:
            yield name, CategoricalDistribution([json.dumps(each) for each in _subsets(domain)])
        case Some(among=among) as domain:
            texts = [json.dumps(each) for each in among]
            for slot in range(domain.slots):
                yield f"{name}#{slot}", CategoricalDistribution(texts if slot == 0 else [_NONE, *texts])


def decoded(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Name of every parameter -> its value, from what Optuna calls it."""
    return {each.name: _decoded(each, params) for each in space.parameters}


def _decoded(parameter: Parameter, params: Mapping[str, Any]) -> Any:
    """The value of one; members of a subset keep the order of the recipe."""
    match parameter.domain:
        case Number():
            return params[parameter.name]
        case Some(among=among) if parameter.size is None:
            chosen = [json.loads(value) for name, value in params.items() if name.startswith(f"{parameter.name}#")]
            return [each for each in among if each in chosen]
    return json.loads(params[parameter.name])


def _subsets(domain: Some) -> Iterator[list[Any]]:
    for count in range(1, domain.slots + 1):
        yield from map(list, combinations(domain.among, count))


def encoded(space: Space, setting: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `decoded`."""
    found: dict[str, Any] = {}
    for each in space.parameters:
        value = setting[each.name]
        match each.domain:
            case Number():
                found[each.name] = value
            case Some() if each.size is None:
                texts = [*map(json.dumps, value), *[_NONE] * each.domain.slots][: each.domain.slots]
                found |= {f"{each.name}#{slot}": text for slot, text in enumerate(texts)}
            case _:
                found[each.name] = json.dumps(value)
    return found


def require_sound(study: Study, space: Space, where: Path) -> None:
    """Refuses a journal with something in it that no search of this space writes.

    Args:
        study: The study that Optuna made of it.
        space: The space.
        where: The journal.

    Raises:
        OutputError: Names the first such point.
    """
    objectives = len(space.search.objectives)
    if len(study.directions) != objectives or any(each.name != "MINIMIZE" for each in study.directions):
        raise OutputError("is of a search with other objectives", where=where, remedy=AGAIN)
    known, cells = distributions(space), None
    for trial in study.get_trials(deepcopy=False):
        try:
            _check_attributes(trial, space)
            _check_setting(trial, known)
            _check_outcome(trial, space)
            cells = _check_same_prompts(trial, cells)
        except (ValueError, DataError, RecursionError) as error:
            told = error.problem if isinstance(error, DataError) else str(error)
            raise OutputError(
                f"holds a point that this search did not write, number {trial.number}: {told}",
                where=where,
                remedy=AGAIN,
            ) from error


def _check_attributes(trial: FrozenTrial, space: Space) -> None:
    if not all(isinstance(each, dict) for each in (trial.user_attrs, trial.system_attrs, trial.params)):
        raise ValueError("it has no attributes")
    for name, value in trial.system_attrs.items():
        if name == _FIXED:
            defaults = space.defaults()
            if defaults is None or value != encoded(space, defaults):
                raise ValueError("it stands for values that were not proposed")
        elif not all(map(_is_finite, value if isinstance(value, list) else [value])):
            raise ValueError(f"{name} is no number")


def _check_setting(trial: FrozenTrial, known: Mapping[str, BaseDistribution]) -> None:
    if any(known.get(name) != each for name, each in trial.distributions.items()):
        raise ValueError("its values are of another space")
    if is_finished(trial) and trial.distributions.keys() != known.keys():
        raise ValueError("some of its values are missing")
    for name, value in trial.params.items():
        low, high = (getattr(known[name], end, None) for end in ("low", "high"))
        if low is not None and high is not None and not (_is_finite(value) and low <= value <= high):
            raise ValueError(f"{name} is {value!r:.40}, beyond its range")


def _check_outcome(trial: FrozenTrial, space: Space) -> None:
    if type(trial.user_attrs.get(PROBLEM, "")) is not str:
        raise ValueError("its problem is no text")
    names = space.search.objectives
    if OUTCOME in trial.user_attrs:
        outcome = Outcome.from_json(trial.user_attrs[OUTCOME])
        if any(outcome.value(name) is None for name in names):
            raise ValueError("an objective was not measured")
        if trial.user_attrs.get(EXCESS) != list(outcome.excess.values()):
            raise ValueError("its constraints are not those of its outcome")
    if trial.state.name != "COMPLETE":
        return
    values = trial.values if isinstance(trial.values, list) else []
    if OUTCOME not in trial.user_attrs or len(values) != len(names) or not all(map(_is_finite, values)):
        raise ValueError("it ended without an outcome")


Cells = dict[tuple[str, str], tuple[frozenset[str], bool]]


def _check_same_prompts(trial: FrozenTrial, known: Cells | None) -> Cells | None:
    """Points are compared prompt by prompt: all have to be read by the same ones, in the same way."""
    if OUTCOME not in trial.user_attrs:
        return known
    rows: Sequence[tuple[str, str, dict[str, float | bool]]] = trial.user_attrs[OUTCOME]["reading"]
    found = {
        (language, metric): (frozenset(items), all(isinstance(value, bool) for value in items.values()))
        for language, metric, items in rows
    }
    if known is not None and found != known:
        raise ValueError("it was read by other prompts than the points before it")
    return found


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
