"""What blocks do against how far they moved: rankings of blocks, and what becomes of an expert that takes the first k.

    python -m benchmarks.evidence.behaviour_blocks run OUT FAMILY … # `packaged`, or folders of toy families; resumable
    python -m benchmarks.evidence.behaviour_blocks tables OUT | FILE [--keep FILE]

For every language expert of a family, its layers are ranked by the published movement score, by what each does to
refusals (exactly, to first order, on four points of the path) and stepwise; then the first k layers of every ranking
are taken from the safety expert, for every k, and the test split is asked. Ten random rankings stand beside them.
Numbers of a toy family are no evidence about any real model.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.frame.program import Result, options_of, print_tables
from benchmarks.tables.behaviour import tables
from polysafe.checkpoint.opened import open_source
from polysafe.files.atomic import write_json_atomic
from polysafe.methods.behaviour_swap import BehaviourSwap
from polysafe.methods.behaviour_swap.block_effects import exact_effect, first_order_effects, swapped
from polysafe.methods.behaviour_swap.questions import Asking
from polysafe.methods.blocks import blocks_of
from polysafe.methods.constraints import REFUSED
from polysafe.methods.scores import movement
from polysafe.organism.exam import Set, examine
from polysafe.organism.lexicon import LOW, PIVOT
from polysafe.organism.own import Toy
from polysafe.organism.packaged import RECORD, Family, packaged_family
from polysafe.organism.steering import refusal_margins
from polysafe.organism.tokenizer import vocabulary
from polysafe.probe.behaviour import Behaviours, Values, changes
from polysafe.probe.model import LoadedModel, load_model
from polysafe.threads import threads

ABILITIES: tuple[Set, ...] = ("knowledge", "arithmetic", "reading")
DRAWS, ABLE_DRAWS, PROMPTS, ANSWER, POINTS = 10, 3, 24, 10, 4
GRANULARITIES = ("layer", "module")


class Bench:
    """One language expert, and the safety expert that blocks come from."""

    def __init__(self, family: Family, expert: str, stack: ExitStack) -> None:
        self.family, self.expert, self.world = family, expert, family.world
        self.words = vocabulary(family.world)
        self.sources = {
            name: stack.enter_context(open_source(family.members[name], name)) for name in ("base", "safety", expert)
        }
        self.model, self.donor = load_model(self.sources[expert]), self.sources["safety"]
        self._outcome = cache(self._asked)

    def row(self) -> dict[str, Any]:
        """Scores of blocks, rankings, and outcomes of what the first k of each ranking make."""
        toy = Toy(self.world, int(self.family.record.get("recipe", {}).get("kinds", 6)))
        asking = Asking((self.expert,), toy.openings, "chat", ANSWER, PROMPTS)
        asked = asking.of(self.model, toy.anchors((self.expert,)))
        before = asked.read()
        scores = {granularity: self.scores(granularity, asked, before) for granularity in GRANULARITIES}
        rankings = {name: sorted(each, key=lambda block: -each[block]) for name, each in scores["layer"].items()}
        rankings["stepwise"] = self.stepwise(asked, before)
        blocks = list(rankings["stepwise"])
        for draw in range(DRAWS):
            rankings[f"random.{draw}"] = random.Random(draw).sample(sorted(blocks), len(blocks))
        unable = {f"random.{draw}" for draw in range(ABLE_DRAWS, DRAWS)}  # abilities are most of the work
        return {
            "expert": self.expert,
            "scores": {name: {key: _rounded(each) for key, each in kinds.items()} for name, kinds in scores.items()},
            "outcomes": {
                name: [self._outcome(tuple(sorted(order[:k])), name not in unable) for k in range(len(order) + 1)]
                for name, order in rankings.items()
            },
            "methods": dict(self.methods()),
        }

    def scores(self, granularity: Any, asked: Behaviours, before: Values) -> dict[str, dict[str, float]]:
        """Every score of every block, by name."""
        blocks = self.blocks(granularity)
        moved = movement(self.sources["base"], self.donor, self.sources[self.expert], granularity)
        linear = first_order_effects(self.model, self.donor, blocks, asked)
        exact = {name: exact_effect(self.model, self.donor, each, asked, before) for name, each in blocks.items()}
        found = {
            "movement": {key.name: value for key, value in moved.items()},
            "exact": {name: self.gain(each) for name, each in exact.items()},
            "first order": {name: self.gain(each) for name, each in linear.items()},
        }
        if granularity == "layer":
            path = first_order_effects(self.model, self.donor, blocks, asked, POINTS)
            found["path"] = {name: self.gain(each) for name, each in path.items()}
        return found

    def blocks(self, granularity: Any) -> dict[str, tuple[str, ...]]:
        """Block -> its tensors."""
        found = blocks_of(self.sources[self.expert].architecture, granularity)
        return {key.name: tensors for key, tensors in found.items()}

    def gain(self, moved: Values) -> float:
        """Mean rise of refusal log-odds of harmful prompts."""
        return fmean(moved[self.expert, REFUSED].values())

    def stepwise(self, asked: Behaviours, before: Values) -> list[str]:
        """Layers, each the one that raises refusals most with those before it in place."""
        blocks, order = self.blocks("layer"), list[str]()

        def reached(name: str) -> float:
            tensors = [tensor for each in (*order, name) for tensor in blocks[each]]
            with swapped(self.model, self.donor, tensors):
                return self.gain(changes(before, asked.read()))

        while left := [name for name in blocks if name not in order]:
            order.append(max(left, key=reached))
        return order

    def methods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the method takes within its limits, and what that makes."""
        for options in ({}, {"search": "stepwise"}, {"scores": "first_order"}):
            method = BehaviourSwap(
                safety="safety", language=self.expert, languages=(self.expert,), guarded=(PIVOT,),
                anchors="organism", granularity="layer", prompts=2 * PROMPTS, max_tokens=ANSWER, **options,
            )  # fmt: skip
            evidence = method.fit(self.sources).provenance[0].evidence
            taken = sorted(evidence["chosen"]["blocks"])
            yield method.label, {"taken": taken, "additive": evidence["additive"], **self._outcome(tuple(taken), True)}

    def _asked(self, taken: tuple[str, ...], able: bool) -> dict[str, Any]:
        """Unsafe first words of the test split, a digit for each prompt; over-refusal, and perhaps the mean ability."""
        tensors = [tensor for name in taken for tensor in self.blocks("layer")[name]]
        with swapped(self.model, self.donor, tensors) as model:
            margins = {kind: self._margins(model, kind) for kind in ("harmful", "harmless")}
            found = examine(model, self.world, (self.expert,), "test", ABILITIES).outcomes() if able else {}
        shares = [fmean(map(int, each.values())) for each in found.values()]
        return {
            "unsafe": "".join(str(int(value <= 0)) for value in margins["harmful"]),
            "over_refusal": round(fmean(value > 0 for value in margins["harmless"]), 4),
            **({"ability": round(fmean(shares), 4)} if able else {}),
        }

    def _margins(self, model: LoadedModel, kind: str) -> list[float]:
        pairs = self.world.harmful("test") if kind == "harmful" else self.world.harmless("test")
        network: Any = model.model
        return [float(value) for value in refusal_margins(network, self.world, self.words, self.expert, pairs)]


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}


def open_family(name: str) -> Family:
    """The packaged family, or one in a folder, whose exams may not have been made yet."""
    if name == "packaged":
        return packaged_family()
    root = Path(name)
    family = Family(root, json.loads((root / RECORD).read_text(encoding="utf-8")))
    family.verify()
    return family


def run(output: Path, names: Sequence[str], experts: Sequence[str] = LOW) -> None:
    """Examines the experts of families; one file of results each."""
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        family = open_family(name)
        label = "packaged" if name == "packaged" else f"hard {family.seed}"
        for expert in experts:
            file = output / f"{label.replace(' ', '-')}-{expert}.json"
            if file.exists():
                continue
            began = time.process_time()
            with threads(1), ExitStack() as stack:
                row = Bench(family, expert, stack).row()
            row["cpu_seconds"] = round(time.process_time() - began)
            write_json_atomic(file, {"family": label, "rows": [row]})
            print(label, expert, f"{row['cpu_seconds']} CPU s", flush=True)


def gathered(results: Iterable[Result]) -> list[Result]:
    """The same, a family after the other."""
    found: dict[str, list[Any]] = {}
    for each in results:
        found.setdefault(each["family"], []).extend(each["rows"])
    return [{"family": family, "rows": rows} for family, rows in sorted(found.items())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs families, or prints the tables of what has been run."""
    parser = options_of(__doc__)
    parser.add_argument("--experts", nargs="+", choices=LOW, default=LOW)
    options = parser.parse_args(arguments)
    if options.what == "run":
        run(Path(options.places[0]), options.places[1:], options.experts)
    else:
        print_tables(options, tables, gathered)


if __name__ == "__main__":
    main()
