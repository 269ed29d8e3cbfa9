"""What recipes, and audits of what they make, take on machines that are not there yet: from headers alone.

Nothing is decided and no model is run. What is written from which model hangs on decisions, so that reading is counted
as the most that it can be. Machines see the same folders (docs/cluster.md): one storage, and a network to each machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.layout import plan_layout
from polysafe.engine.job import RecipeJob
from polysafe.threads import MOST

HOUR = 3600.0


@dataclass(frozen=True)
class Rates:
    """What one core does, in bytes per CPU second. The defaults are those of `benchmarks/results/scale.json`.

    Attributes:
        norms: Bytes of weights that are compared.
        hashing: Bytes of files that are hashed.
        mixing: Bytes of weights that are read to be copied or blended.
    """

    norms: float = 0.99e9
    hashing: float = 1.2e9
    mixing: float = 1.9e9


@dataclass(frozen=True)
class Machines:
    """Where the work would be done.

    Attributes:
        nodes: Number of machines.
        disk: Bytes per second of the storage that all of them see, together.
        network: Bytes per second between it and each machine; None where the disk is the machine's own.
        cores: Cores of a machine.
        rate: Dollars per machine and hour, None where nobody asks.
    """

    nodes: int
    disk: float
    network: float | None = None
    cores: int = 1
    rate: float | None = None


@dataclass(frozen=True)
class Questions:
    """What would be asked of every model that is made.

    Attributes:
        prompts: Prompts in each language.
        languages: Languages.
        tokens: Tokens of an answer.
        speed: Tokens per second of one machine.
    """

    prompts: int
    languages: int
    tokens: int
    speed: float


@dataclass(frozen=True)
class Phase:
    """One part of the work.

    Attributes:
        name: What is done.
        read: Bytes read.
        written: Bytes written.
        moved: Bytes that go over the network.
        nodes: Machines that work on it.
        takes: Disk, network, processors, model -> seconds that it would take if nothing else did.
        seconds: Seconds that it takes.
    """

    name: str
    read: int
    written: int
    moved: int
    nodes: int
    takes: Mapping[str, float]
    seconds: float

    @property
    def bottleneck(self) -> str:
        """What it waits for longest."""
        return max(self.takes, key=lambda name: self.takes[name])


@dataclass(frozen=True)
class Forecast:
    """What it takes in all.

    Attributes:
        machines: Where.
        phases: One after the other.
        notes: What is not counted.
    """

    machines: Machines
    phases: tuple[Phase, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def hours(self) -> float:
        """Hours from beginning to end."""
        return sum(phase.seconds for phase in self.phases) / HOUR

    @property
    def node_hours(self) -> float:
        """Hours of machines that are held from beginning to end."""
        return self.hours * self.machines.nodes

    @property
    def dollars(self) -> float | None:
        """What they cost."""
        return None if self.machines.rate is None else self.node_hours * self.machines.rate

    @property
    def longest(self) -> Phase:
        """The phase that takes longest."""
        return max(self.phases, key=lambda phase: phase.seconds)

    def to_json(self) -> dict[str, Any]:
        """The forecast as plain data."""
        return {
            "machines": asdict(self.machines),
            "phases": [{**asdict(phase), "bottleneck": phase.bottleneck} for phase in self.phases],
            "hours": self.hours,
            "node_hours": self.node_hours,
            "dollars": self.dollars,
            "bottleneck": {"phase": self.longest.name, "of": self.longest.bottleneck},
            "notes": list(self.notes),
        }


def forecast(
    jobs: Sequence[RecipeJob], machines: Machines, questions: Questions | None = None, rates: Rates | None = None
) -> Forecast:
    """What it takes to carry recipes out together, and to audit what they make.

    Args:
        jobs: The recipes, resolved.
        machines: Where.
        questions: What every model is asked afterwards, if anything.
        rates: What a core does.

    Raises:
        PolysafeError: The sources of a recipe do not fit together, or an option does not fit them.
    """
    per_core = rates or Rates()
    deciding: Counter[TensorSpec] = Counter()
    notes = ["where tensors are read from hangs on decisions: reading is the most that it can be, nothing remembered"]
    for job in jobs:
        with job.sources() as sources:
            first, *others = job.recipe.edits
            deciding |= Counter(first.reads(sources))  # of what several read, all are told
            for edit in others:
                deciding += Counter(edit.reads(sources))
        names = dict.fromkeys(edit.label for edit in job.recipe.edits if edit.runs_models)
        if names:
            notes.append(f"{job.target}: {', '.join(names)} also runs a model to decide, which is not counted")
    phases = [
        _alone("decide", sum(spec.nbytes * times for spec, times in deciding.items()), per_core.norms, machines),
        _alone("hash inputs", sum(_input_files(jobs).values()), per_core.hashing, machines),
        *_writing(jobs, machines, per_core),
    ]
    if questions is not None:
        phases += [_asked(job, machines, questions) for job in jobs]
    return Forecast(machines, tuple(_merged(phases)), tuple(dict.fromkeys(notes)))


def _input_files(jobs: Iterable[RecipeJob]) -> dict[object, int]:
    """Every weight file once."""
    return {header.file: header.size for job in jobs for each in job.checkpoints.values() for header in each.headers}


def _alone(name: str, read: int, rate: float, machines: Machines) -> Phase:
    """What the command does by itself, on one machine, with a thread for each core up to a limit."""
    takes = {**_moving(read, 1, machines), "processors": read / (rate * min(machines.cores, MOST))}
    moving, computing = max(_moving(read, 1, machines).values()), takes["processors"]
    seconds = moving + computing if machines.cores == 1 else max(moving, computing)
    return Phase(name, read, 0, _moved(read, machines), 1, takes, seconds)


def _writing(jobs: Iterable[RecipeJob], machines: Machines, rates: Rates) -> list[Phase]:
    phases = []
    for job in jobs:
        start = job.checkpoints[job.recipe.edits[0].start]
        written_from = dict.fromkeys(name for edit in job.recipe.edits for name in edit.written_from)
        layout = plan_layout(list(start.tensors.values()), job.shard_size)
        models = [job.checkpoints[name] for name in written_from]
        read = sum(each.tensors[name].nbytes for name in start.tensors for each in models if name in each.tensors)
        nodes = min(machines.nodes, len(layout.shards))
        # a file is a task of two threads: one reads and computes, one hashes; a single machine writes file by file
        files = len(layout.shards) if machines.nodes > 1 else 1
        cores = min(2 * files, nodes * machines.cores)
        computed = (layout.size / rates.hashing + read / rates.mixing) / cores
        takes = {**_moving(read + layout.size, nodes, machines), "processors": computed}
        moved = _moved(read + layout.size, machines)
        phases.append(Phase("write", read, layout.size, moved, nodes, takes, max(takes.values())))
    return phases


def _asked(job: RecipeJob, machines: Machines, asked: Questions) -> Phase:
    """Every machine loads the model once, and answers its share."""
    size = job.checkpoints[job.recipe.edits[0].start].total_bytes
    loading = _moving(machines.nodes * size, machines.nodes, machines)
    answering = asked.prompts * asked.languages * asked.tokens / (asked.speed * machines.nodes)
    read = machines.nodes * size
    takes = {**loading, "model": answering}
    return Phase("audit", read, 0, _moved(read, machines), machines.nodes, takes, max(loading.values()) + answering)


def _moving(size: int, nodes: int, machines: Machines) -> dict[str, float]:
    takes = {"disk": size / machines.disk}
    return takes if machines.network is None else {**takes, "network": size / (machines.network * nodes)}


def _moved(size: int, machines: Machines) -> int:
    return 0 if machines.network is None else size


def _merged(phases: Iterable[Phase]) -> list[Phase]:
    """Phases of one name as one: they follow each other."""
    found: dict[str, Phase] = {}
    for each in phases:
        one = found.get(each.name)
        if one is None:
            found[each.name] = each
            continue
        takes = {name: one.takes[name] + each.takes[name] for name in one.takes}
        found[each.name] = Phase(
            one.name,
            one.read + each.read,
            one.written + each.written,
            one.moved + each.moved,
            max(one.nodes, each.nodes),
            takes,
            one.seconds + each.seconds,
        )
    return list(found.values())
