"""What a second process of a Ray cluster brings to probing and to an audit, beside one, and beside no cluster.

    python -m benchmarks.speed.cluster --model MODEL --runs 3 --output benchmarks/results/cluster.json

Each side is a process of its own that starts a cluster on this machine, hands out the same prompts of neutral words and
ends it; processes compute with one thread. What comes back is compared: effects and activations bit for bit, answers
word by word. `work` is the time from the first process that holds the model to the last result, `whole` that with the
start and the end of the cluster. CPU seconds and memory are those of the whole machine, so nothing else may run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import psutil

from benchmarks.frame import timing
from benchmarks.frame.measure import run_side

if TYPE_CHECKING:
    from polysafe.cluster.pool import Cluster
    from polysafe.probe.model import LoadedModel

SIDES = ("here", "one", "two")
WORKERS = {"one": 1, "two": 2}
KINDS = ("audit", "activations", "effects")
TOKENS = 24
"""Budget of an answer."""
LENGTH = 60
"""Words of a prompt that is probed."""


@dataclass(frozen=True)
class Side:
    """What one run of one side took.

    Attributes:
        whole: Seconds from the start of the cluster to its end.
        work: Seconds from the first process that holds the model to the last result.
        cpu: User and system seconds of the machine meanwhile.
        memory: Largest memory of the machine in use, beyond that before, in MiB.
        result: Hash of what came back.
    """

    whole: float
    work: float
    cpu: float
    memory: float
    result: str


class _Machine:
    """Processor time and memory of the whole machine; a context."""

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._used, self.peak = psutil.virtual_memory().used, 0
        self._began, self._busy = time.perf_counter(), self._cpu()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.whole, self.cpu = time.perf_counter() - self._began, self._cpu() - self._busy
        self._stop.set()
        self._thread.join()

    def _cpu(self) -> float:
        times = psutil.cpu_times()
        return float(times.user + times.nice + times.system)  # Ray lowers the priority of its processes

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, psutil.virtual_memory().used - self._used)


def main() -> None:
    """Measures every side of every kind of work and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    timing.add_side(parser, SIDES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(_side(options.side, options.kinds[0], options.model.absolute(), options.prompts))))
        return
    found = {kind: _measured(kind, options) for kind in options.kinds}
    timing.save(options.output, {"model": options.model.name, "prompts": options.prompts, "kinds": found})


def _measured(kind: str, options: argparse.Namespace) -> dict[str, list[Side]]:
    shared = ["--model", str(options.model), "--prompts", str(options.prompts), "--kinds", kind]
    runs: dict[str, list[Side]] = {side: [] for side in options.sides}
    for _ in range(options.runs):
        for side, made in runs.items():
            made.append(Side(**run_side("benchmarks.speed.cluster", "--side", side, *shared)))
    alike = len({each.result for made in runs.values() for each in made}) == 1
    print(f"{kind}, {options.prompts} prompts: {'the same results' if alike else 'RESULTS DIFFER'}")
    for side, made in runs.items():
        middle = {name: median(asdict(each)[name] for each in made) for name in ("whole", "work", "cpu", "memory")}
        print(f"  {side:5}" + "".join(f"  {name} {value:.1f}" for name, value in middle.items()), flush=True)
    if {"one", "two"} <= runs.keys():
        pairs = list(zip(runs["one"], runs["two"], strict=True))
        gains = {name: median(getattr(a, name) / getattr(b, name) for a, b in pairs) for name in ("whole", "work")}
        print(f"  two processes: {gains['work']:.2f} times as fast as one, {gains['whole']:.2f} with start and end")
    return runs


def _side(side: str, kind: str, model: Path, prompts: int) -> Side:
    from polysafe.cluster.pool import Cluster
    from polysafe.threads import threads

    work: Callable[..., Any] = {"audit": _audit, "activations": _activations, "effects": _effects}[kind]
    import ray  # noqa: F401  # what every side imports is not part of what is measured
    import transformers  # noqa: F401

    with threads(1), _Machine() as machine:
        began, digest = work(model, prompts, Cluster(workers=WORKERS[side]) if side in WORKERS else None)
        ended = time.perf_counter()
    return Side(machine.whole, ended - began, machine.cpu, machine.peak / (1 << 20), digest)


def _words(count: int) -> Iterator[str]:
    """Prompts of neutral words, half of them up to eight times as long as the shortest."""
    draw = random.Random(0)
    for _ in range(count):
        yield " ".join(
            draw.choice(("one", "two", "three", "tree", "river", "house")) for _ in range(draw.randint(8, 64))
        )


def _audit(model: Path, count: int, cluster: Cluster | None) -> tuple[float, str]:
    from polysafe.cluster.models import open_on
    from polysafe.evaluate.opening import open_model
    from polysafe.generate.completion import Ask, Sampling

    sampling = Sampling(max_tokens=TOKENS)
    asks = [Ask(str(number), text) for number, text in enumerate(_words(count))]
    opening = open_model(model, sampling) if cluster is None else open_on(cluster, model, sampling)
    with opening as opened:
        began = time.perf_counter()
        answers = {each.id: each.text for each in opened.generator.generate(asks)}
        _told(len(answers), count)
        return began, hashlib.sha256(json.dumps(sorted(answers.items())).encode()).hexdigest()


def _told(found: int, asked: int) -> None:
    if found != asked:
        raise SystemExit(f"{found} of {asked} came back")


@contextmanager
def _probed(model: Path, cluster: Cluster | None) -> Iterator[LoadedModel]:
    """The model, measured by who has it already."""
    from polysafe.checkpoint.opened import open_source
    from polysafe.cluster.probing import RayHands
    from polysafe.probe.capture import capture
    from polysafe.probe.hands import Here, measured_by
    from polysafe.probe.model import load_model
    from polysafe.probe.render import load_tokenizer, render
    from polysafe.probe.stores import Rows

    with ExitStack() as stack:
        loaded = load_model(stack.enter_context(open_source(model)))
        hands = Here() if cluster is None else stack.enter_context(RayHands(cluster))
        stack.enter_context(measured_by(hands))
        capture(loaded, render(load_tokenizer(model), {"first": "one"}), [0], into=Rows())
        yield loaded


def _activations(model: Path, count: int, cluster: Cluster | None) -> tuple[float, str]:
    from polysafe.probe.capture import capture
    from polysafe.probe.render import load_tokenizer, render
    from polysafe.probe.stores import Rows

    with _probed(model, cluster) as loaded:
        prompts = render(load_tokenizer(model), {str(number): text for number, text in enumerate(_words(count))})
        began = time.perf_counter()
        found = capture(loaded, prompts, into=Rows(), batch_size=4)
        digest = hashlib.sha256(b"".join(found[layer].numpy().tobytes() for layer in found.store.layers))
        return began, digest.hexdigest()


def _effects(model: Path, count: int, cluster: Cluster | None) -> tuple[float, str]:
    import torch

    from polysafe.probe.answers import ScoredPrompt
    from polysafe.probe.hands import hands_for

    with _probed(model, cluster) as loaded:
        draw = random.Random(0)
        layout = loaded.architecture.heads
        assert layout is not None
        shape = len(loaded.architecture.with_heads), layout.num_heads, layout.head_dim
        means = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        tokens = [tuple(draw.randrange(100, 200) for _ in range(LENGTH + 1)) for _ in range(max(8, count // 4))]
        prompts = [ScoredPrompt(str(n), each[:-1], each[-1:], "") for n, each in enumerate(tokens)]
        began = time.perf_counter()
        found = dict(hands_for(loaded).scores(loaded, prompts, means=means, score="first", by_rows=True))
        _told(len(found), len(prompts))
        return began, hashlib.sha256(b"".join(found[place].numpy().tobytes() for place in sorted(found))).hexdigest()


if __name__ == "__main__":
    main()
