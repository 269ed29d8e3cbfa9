"""What a search chooses on the family in real languages, against the published defaults and a random search.

    python -m benchmarks.evidence.choosing_real run DATA OUT SEED… [--known FILE]    # goes on where it stopped
    python -m benchmarks.evidence.choosing_real tables OUT | FILE [--keep FILE]

The family of each seed is built where it is not there. Every arm is searched on validation prompts by refusal log-odds,
the family's exact judge decides among the best; what is chosen, what the published defaults give, and the members that
they start from are asked the test split as the family's quickstart asks its models.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.tables.chosen import WAYS, print_tables, read_file
from polysafe.checkpoint.dtypes import fast_type
from polysafe.files.atomic import write_json_atomic
from polysafe.methods.registry import resolve
from polysafe.organism.gemma.family import build_gemma
from polysafe.organism.gemma.tables import Tables, write_tables
from polysafe.organism.gemma.texts import Texts
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.search.space import make_space
from polysafe.threads import threads
from polysafe.workflows.examination import BOUNDARY, HARMFUL, JUDGE, MAX_TOKENS, Examination, examine
from polysafe.workflows.run import run_recipe
from polysafe.workflows.search import search

LAYERS = 18
TRIALS = 12
JUDGED = 4
LIMIT = 50
EDITED = ("zh", "bn")
"""Languages with anchors, which edits of the aligned model are for."""
GUARDED = ("en", "vi")
"""Languages in which they may cost nothing."""
CHOICES = "choices.json"
PUBLISHED = "published"


@dataclass(frozen=True)
class Arm:
    """What is searched.

    Attributes:
        name: Its name, in which an expert's language stands last.
        start: The member that is edited.
        methods: Methods of its edits, in their order.
        languages: Languages that are to become safer.
        guarded: Languages in which it may cost nothing.
    """

    name: str
    start: str
    methods: tuple[str, ...]
    languages: tuple[str, ...] = EDITED
    guarded: tuple[str, ...] = GUARDED

    @property
    def examination(self) -> Examination:
        """What the edited model is asked."""
        spoken = (*self.guarded, *self.languages)
        return Examination(spoken, spoken, boundary=True)


ARMS = (
    Arm("head_steering", "aligned", ("head_steering",)),
    Arm("band_swap.bn", "bn", ("band_swap",), ("bn",), ("en",)),
    Arm("sparse_edit", "aligned", ("sparse_edit",)),
    Arm("sparse_edit+head_steering", "aligned", ("sparse_edit", "head_steering")),
)


@dataclass
class Bench:
    """One seed of the family.

    Attributes:
        output: Where everything of it is kept.
        data: Folder with a folder per set.
        members: Its members.
        tables: Its tables of prompts.
    """

    output: Path
    data: Path
    members: Mapping[str, Path]
    tables: Tables

    def start(self, name: str) -> dict[str, Any]:
        """A member that is edited, asked what its edits are."""
        arms = [arm for arm in ARMS if arm.start == name]
        self._asked(self.members[name], name, arms[0].examination)
        return {"name": name}

    def choose(self, arm: Arm, way: str) -> dict[str, Any]:
        """The published defaults, or what a search takes, if it takes anything, asked the test split."""
        name = f"{way}.{arm.name}"
        began = time.process_time()
        recipe, more = self._published(arm) if way == PUBLISHED else self._searched(arm, way, name)
        more["cpu_seconds"] = round(time.process_time() - began)
        if recipe is not None:
            output = recipe.output.model_copy(update={"path": self.output / "models" / name})
            made = run_recipe(recipe.model_copy(update={"output": output})).output
            self._asked(made, name, arm.examination)
        return {"name": name, **more}

    def _asked(self, folder: Path, name: str, wanted: Examination) -> None:
        examine(folder, self.output / "runs" / name, wanted, self.data, self.tables.test)

    def _published(self, arm: Arm) -> tuple[Recipe, dict[str, Any]]:
        """The defaults as they are: nothing is compared on validation prompts."""
        data = self._data(arm, [self._entry(arm, method) for method in arm.methods])
        return make_recipe({name: value for name, value in data.items() if name != "validation"}), {}

    def _searched(self, arm: Arm, sampler: str, name: str) -> tuple[Recipe | None, dict[str, Any]]:
        ranged = [{**self._entry(arm, method), **resolve(method).ranges(LAYERS)} for method in arm.methods]
        tried = {"trials": TRIALS, "judged": JUDGED, "sampler": sampler, "objectives": ["refused", "kl"]}
        space = make_space({**self._data(arm, ranged), "search": tried})
        found = search(space, self.output / "searches" / name)
        point = found.choice.point
        return None if point is None else space.at(point.setting), {
            "points": len(found.points),
            "judged": len(found.judged),
            "reason": found.choice.reason,
            "chosen": None if point is None else dict(point.setting),
            "agreement": [[each.language, each.tau, each.points] for each in found.agreement],
            "seconds": {part: round(value, 1) for part, value in found.seconds.items()},
        }

    def _data(self, arm: Arm, edits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        named = ("aligned", "harm") if arm.start == "aligned" else ("safety", arm.start)
        return {
            "polysafe": 1,
            "data": str(self.data),
            "dtype": fast_type(),
            "sources": {name: {"path": str(self.members[name])} for name in named},
            "edits": list(edits),
            "output": {"path": str(self.output / "models" / "nowhere")},
            "validation": {
                "languages": [*arm.guarded, *arm.languages],
                "safety": ["multijail.validation"],
                "over_refusal": [str(self.tables.validation)],
                "judge": {"kind": JUDGE},
                "max_tokens": MAX_TOKENS,
                "limit": LIMIT,
            },
            "evaluate": {"languages": list(arm.languages), "safety": [HARMFUL], "over_refusal": [BOUNDARY]},
        }

    def _entry(self, arm: Arm, method: str) -> dict[str, Any]:
        own: dict[str, Any]
        match method:
            case "sparse_edit":
                anchors = {"harmful": str(self.tables.harmful), "harmless": str(self.tables.harmless)}
                own = {"model": arm.start, "pivot": "en", "languages": list(arm.languages), "anchors": anchors}
            case "head_steering":
                tasks = {"sib200": str(self.data / "sib200"), "tatoeba": str(self.data / "tatoeba")}
                own = {"model": arm.start, "harmful": "harm", "languages": list(arm.languages), "tasks": tasks}
                own["prompts"] = 25
            case _:
                own = {"safety": "safety", "language": arm.start}
        return {"method": method, **own}


def run(data: Path, output: Path, seed: int, known: Collection[str] = ()) -> None:
    """Tries every way of every arm on one seed but those that are known from elsewhere; what is done is kept."""
    data, output = data.absolute(), output.absolute() / str(seed)
    family = build_gemma(data, seed=seed, members=("safety", "bn", "harm"))
    output.mkdir(parents=True, exist_ok=True)
    bench = Bench(output, data, family.members, write_tables(Texts(data), output / "tables"))
    file = output / CHOICES
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for name, task in _tasks(bench):
        if name not in known and name not in [row["name"] for row in rows]:
            with threads(1):
                rows.append(task())
            write_json_atomic(file, rows)
            print(seed, json.dumps(rows[-1], ensure_ascii=False), flush=True)


def _tasks(bench: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    for name in dict.fromkeys(arm.start for arm in ARMS):
        yield name, partial(bench.start, name)
    # Way by way: a run that is stopped has the search whole before the random one that it is compared with.
    for way, arm in product(WAYS, ARMS):
        yield f"{way}.{arm.name}", partial(bench.choose, arm, way)


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches the seeds that are named, or prints what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="what", required=True)
    running = commands.add_parser("run")
    running.add_argument("data", type=Path)
    running.add_argument("output", type=Path)
    running.add_argument("seeds", nargs="+", type=int)
    running.add_argument("--known", type=Path, help="what `tables --keep` wrote: what it holds is not tried again")
    printing = commands.add_parser("tables")
    printing.add_argument("source", type=Path)
    printing.add_argument("--keep", type=Path)
    options = parser.parse_args(arguments)
    if options.what == "tables":
        print_tables(options.source, options.keep)
        return
    known = dict[int, Collection[str]]()
    if options.known:
        kept = read_file(options.known)
        known = dict(zip(kept.outcomes.names, kept.choices, strict=True))
    for seed in options.seeds:
        run(options.data, options.output, seed, known.get(seed, ()))


if __name__ == "__main__":
    main()
