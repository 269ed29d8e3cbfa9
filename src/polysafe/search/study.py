"""The points of a search, one after the other or by several processes, kept on disk as they come.

Which point is tried next is Optuna's choice: its tree-structured Parzen estimator (Ozaki et al., *Multiobjective
tree-structured Parzen estimator*, JAIR 2022) or NSGA-II (Deb et al., 2002), with constraints; a space that is small
enough is tried whole. A sampler draws anew for every point, from the seed and the number of points before it, so that
a search that was killed goes on as it would have gone on, if one process makes it.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.checkpoint.writer import writing_to
from polysafe.errors import OutputError, PolysafeError, ResourceError, VerificationError
from polysafe.files.plain import TooLargeError, is_shared, read_plain
from polysafe.progress import during
from polysafe.search.points import Outcome, Point, Try, tried
from polysafe.search.space import Space
from polysafe.search.trials import (
    AGAIN,
    EXCESS,
    OUTCOME,
    PROBLEM,
    decoded,
    distributions,
    encoded,
    is_finished,
    require_sound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "study.journal"
_IDENTITY = "identity"
_HOPELESS = 5
"""So many points in a row that cannot be made, at the beginning, end a search."""


class Study:
    """The points that were tried, in a folder.

    Args:
        folder: It exists.
        space: The recipe and its fields.
        identity: What tells this search from others: points of another one are not taken over.

    Raises:
        OutputError: Another search, or something else, lies in the folder, or a point in it was damaged.
        ResourceError: Optuna is not installed.
    """

    def __init__(self, folder: Path, space: Space, identity: str) -> None:
        self._space, self._search, self._folder = space, space.search, folder
        self._study = _opened(folder, space)
        known = self._study.user_attrs.get(_IDENTITY)
        if known is None:
            with writing_to(self._folder / JOURNAL):
                self._study.set_user_attr(_IDENTITY, identity)
        elif known != identity:
            raise OutputError(
                "holds another search: its recipe, models or prompts are others",
                where=folder,
                remedy=AGAIN,
            )
        require_sound(self._study, space, folder / JOURNAL)

    def points(self) -> list[Point]:
        """All points that were tried, in their order."""
        return [_point(number, trial, self._space) for number, trial in enumerate(self._finished())]

    def begin(self) -> None:
        """Drops what a search that was killed had begun, and puts the published point first."""
        with _quiet(), writing_to(self._folder / JOURNAL):
            self._tidy()

    def _tidy(self) -> None:
        from optuna.trial import TrialState

        begun = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in begun:
            if OUTCOME in trial.user_attrs:
                self._complete(trial.number, Outcome.from_json(trial.user_attrs[OUTCOME]))
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
        defaults = self._space.defaults()
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if defaults is not None and not waiting and not self._finished():  # the first may have been begun and killed
            self._study.enqueue_trial(encoded(self._space, defaults))

    def run(self, attempt: Try, trials: int, *, until: float = math.inf, worker: int = 0) -> None:
        """Tries points until there are enough of them or the time is over.

        Args:
            attempt: Makes an edit and reads the edited model.
            trials: Number of points in all.
            until: Time (`time.monotonic`) after which no point is begun.
            worker: Number of this process.

        Raises:
            VerificationError: None of the first points can be made.
        """
        known = {_key(point.setting): point for point in self.points()}
        while (count := len(self._counted())) < trials and time.monotonic() < until:
            with _quiet(), writing_to(self._folder / JOURNAL):
                self._study.sampler = self._sampler(count, worker)
                trial = self._study.ask(distributions(self._space))
                setting = decoded(self._space, trial.params)
                surplus = self._surplus(trial, trials)
            if surplus:
                break
            before = known.get(_key(setting))
            with during(f"point {count + 1} of {trials}"):
                point = before if before is not None else tried(trial.number, setting, attempt)
            known[_key(setting)] = point
            self._told(trial, point)
            _require_hope(self._finished())

    def _told(self, trial: Trial, point: Point) -> None:
        from optuna.trial import TrialState

        missing = [] if point.outcome is None else self._unmeasured(point.outcome)
        with _quiet(), writing_to(self._folder / JOURNAL):
            if point.outcome is None or missing:
                trial.set_user_attr(PROBLEM, point.problem or f"not measured: {', '.join(missing)}")
                self._study.tell(trial, state=TrialState.FAIL)
                return
            trial.set_user_attr(EXCESS, list(point.outcome.excess.values()))
            trial.set_user_attr(OUTCOME, point.outcome.to_json())
            self._complete(trial.number, point.outcome)

    def _complete(self, number: int, outcome: Outcome) -> None:
        """Tells Optuna what came of a point; a kill may have come before that."""
        # the sampler of a whole space would end a loop of Optuna's, and there is none
        self._study.sampler = _plain_sampler() if self._whole else self._sampler(0, 0)
        values = [value for each in self._search.objectives if (value := outcome.value(each)) is not None]
        self._study.tell(number, values)

    def _unmeasured(self, outcome: Outcome) -> list[str]:
        values = {name: outcome.value(name) for name in self._search.objectives}
        return [name for name, value in values.items() if value is None or not math.isfinite(value)]

    def _surplus(self, trial: Trial, trials: int) -> bool:
        """Whether another process has begun the last point; then this one is dropped."""
        from optuna.trial import TrialState

        counted = [each.number for each in self._counted()]
        if counted.index(trial.number) < trials:
            return False
        self._study.tell(trial, state=TrialState.FAIL)
        return True

    def _counted(self) -> list[FrozenTrial]:
        """Points that are tried or being tried."""
        from optuna.trial import TrialState

        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if trial.state is TrialState.RUNNING or is_finished(trial)]

    def _finished(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if is_finished(trial)]

    @property
    def _whole(self) -> bool:
        """Whether the space is so small that all of it is tried."""
        return self._space.size is not None and self._space.size <= self._search.trials

    def _sampler(self, count: int, worker: int) -> Any:
        import optuna

        seed = (self._search.seed * 1_000_003 + count) * 64 + worker
        if self._whole:
            return optuna.samplers.BruteForceSampler(seed=seed)
        match self._search.sampler:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, constraints_func=_excess)
        return optuna.samplers.TPESampler(seed=seed, constraints_func=_excess)


def _plain_sampler() -> Any:
    import optuna

    return optuna.samplers.RandomSampler()


def _opened(folder: Path, space: Space) -> optuna.Study:
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.study import StudyDirection
    except ImportError as error:
        raise ResourceError(
            "Optuna is not installed", remedy="install the extra: pip install 'polysafe[search]'"
        ) from error
    file = folder / JOURNAL
    with _quiet(), writing_to(file), _read(file):
        _complete(file)
        storage = JournalStorage(JournalFileBackend(str(file)))
        directions = [StudyDirection.MINIMIZE] * len(space.search.objectives)
        return optuna.create_study(storage=storage, study_name="polysafe", directions=directions, load_if_exists=True)


def _complete(file: Path) -> None:
    """Cuts off a last line that a kill left half written: what it would have said is asked for again.

    Raises:
        OutputError: The file is a link, or has a name elsewhere: nothing is written there.
    """
    if is_shared(file):
        raise OutputError("is a link, or a file with another name; nothing is written there", where=file)
    if file.exists():
        content = read_plain(file)
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)


@contextmanager
def _read(file: Path) -> Iterator[None]:
    """Within it, a damaged journal is told; what replays it raises anything."""
    try:
        yield
    except PolysafeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, TooLargeError):
            raise
        raise OutputError("is no journal of a search", where=file, remedy=AGAIN) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's messages and its warnings of experimental features away; errors come through."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _excess(trial: FrozenTrial) -> Sequence[float]:
    found: list[float] = trial.user_attrs.get(EXCESS, [1.0])
    return found


def _require_hope(finished: Sequence[FrozenTrial]) -> None:
    problems = [trial.user_attrs.get(PROBLEM) for trial in finished]
    if len(problems) >= _HOPELESS and all(problems):
        same = all(first == second for first, second in pairwise(problems))
        told = problems[0] if same else "; ".join(dict.fromkeys(map(str, problems)))
        raise VerificationError(
            f"none of the first {_HOPELESS} points can be made: {told}",
            where="search",
            remedy="mend what is said here, then run the same command with another folder",
        )


def _point(number: int, trial: FrozenTrial, space: Space) -> Point:
    setting = decoded(space, trial.params)
    content = trial.user_attrs.get(OUTCOME)
    outcome = None if content is None else Outcome.from_json(content)
    return Point(number, setting, outcome, trial.user_attrs.get(PROBLEM, ""))


def _key(setting: Mapping[str, Any]) -> str:
    return json.dumps(setting, sort_keys=True)
