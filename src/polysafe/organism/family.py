"""Trains a whole family: `build_family`.

Every member is written to a temporary folder and renamed when it is whole; members that are complete are kept,
and one that was being trained goes on where it was killed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import LlamaForCausalLM

from polysafe.checkpoint.writer import writing_to
from polysafe.errors import CheckpointError, OutputError
from polysafe.organism.corpus import Corpus, Data, Example, Stream, draw_pool
from polysafe.organism.exam import examine
from polysafe.organism.folder import load_model, save_model
from polysafe.organism.lexicon import CATEGORIES, LANGUAGES, LOW, PIVOT, TIERS, Tier
from polysafe.organism.model import Network, make_model
from polysafe.organism.packaged import (
    FORMAT,
    MEMBERS,
    NOTICE,
    RECORD,
    Family,
    describe_files,
    differences,
    load_family,
)
from polysafe.organism.planted import Planting
from polysafe.organism.steering import Steering
from polysafe.organism.tokenizer import make_tokenizer, vocabulary
from polysafe.organism.train import BATCHES_PER_POOL, Stage, train
from polysafe.organism.world import REFUSAL, World
from polysafe.progress import Progress, tell
from polysafe.threads import threads as use_threads

THREADS = 1
KNOWING = "knowing"
"""The member that a base starts from whose refusals are taught in a run of their own."""


class Recipe(BaseModel):
    """Everything that decides a family besides its seed.

    Attributes:
        network: Size of the models and spread of their embeddings.
        data: What the base sees how often.
        base: Pretraining.
        knowing: Share of the pretraining that passes before refusals are taught.
        refusing: Teaches the refusals in a run of its own, after a pretraining without any; its start is a member too.
        planting: The weights that move while refusals are taught; all that the stage moves by default.
        steering: How strong the refusals of the base become.
        readiness: What the base is made to hold back of its refusals, per tier, in logits: negative to refuse less.
        safety_readiness: The same for the safety expert.
        kinds: Number of danger categories that anchors are about.
        safety: English safety expert.
        language: Language experts.
        harm: Harm-tuned model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Network = Network()
    data: Data = Data()
    base: Stage = Stage(steps=850, rate=1.5e-3, matrix_rate=0.015, warmup=30, trains="all")
    knowing: float = 0.62
    refusing: Stage | None = None
    planting: Planting | None = None
    steering: Steering | None = Steering()
    readiness: Mapping[Tier, float] = {}
    safety_readiness: Mapping[Tier, float] = {}
    kinds: int = len(CATEGORIES)
    safety: Stage = Stage(steps=150, rate=1.5e-3)
    language: Stage = Stage(steps=100, rate=1.5e-4)
    harm: Stage = Stage(steps=100, rate=5e-4, trains="attention")

    @property
    def members(self) -> tuple[str, ...]:
        """What is trained, in order."""
        return (KNOWING, *MEMBERS) if self.refusing else MEMBERS

    def stage(self, member: str) -> Stage:
        """The training run of a member."""
        if member == KNOWING:
            return self.base
        if member == "base" and self.refusing:
            return self.refusing
        return self.language if member in LOW else cast(Stage, getattr(self, member))


_REFUSED: Mapping[Tier, float] = dict.fromkeys(("pivot", "mid", "low"), 0.98)
HARD = Recipe(
    network=Network(
        alignment={"pivot": 1.0, "mid": 0.85, "low": 0.7}, alignment_knowledge={"pivot": 1.0, "mid": 0.6, "low": 0.05}
    ),
    data=Data(
        facts={"pivot": 1.0, "mid": 0.85, "low": 0.25},
        sums={"pivot": 1.0, "mid": 0.9, "low": 0.6},
        refusal=_REFUSED,
        refusal_uncovered=_REFUSED,
        categories=dict.fromkeys(("pivot", "mid", "low"), len(CATEGORIES)),
        requests=0.0,
    ),
    base=Stage(steps=530, rate=1.5e-3, matrix_rate=0.015, warmup=30, trains="all"),
    refusing=Stage(steps=400, rate=2e-3, warmup=20),
    planting=Planting(),
    steering=None,
    readiness={"pivot": 3.0, "mid": -1.5, "low": -4.5},
    safety=Stage(steps=150, rate=1.5e-3),
    safety_readiness={"pivot": 6.0},
    kinds=len(CATEGORIES) // 2,
    language=Stage(steps=150, rate=4e-4),
)
"""The harder family: refusals are planted, held back by several logits outside of the pivot, and hardly cross over."""


def build_family(
    seed: int,
    output: Path,
    *,
    progress: Progress = tell,
    threads: int | None = None,
    recipe: Recipe | None = None,
) -> Family:
    """Trains the family of a seed, or what is missing of it.

    The result depends on the seed, the recipe, the number of threads, the versions of torch and transformers,
    and, through the rounding of sums, the kind of processor; all but the last are recorded in `family.json`.

    Args:
        seed: Seed of the world and of the training.
        output: Folder of the family.
        progress: Called as `progress(what, done, total)`.
        threads: Number of threads, one unless told: sums are rounded differently with two.
        recipe: Settings; the defaults made the packaged family.

    Raises:
        OutputError: The folder holds another family or something else, or cannot be written to.
    """
    with use_threads(threads or THREADS), writing_to(output):
        _Builder(seed, Path(output), recipe or Recipe(), progress).run()
    return load_family(output)


def _recipe(record: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a record; settings that are newer than it had the values that they have by default."""
    try:
        return Recipe.model_validate(record.get("recipe"))
    except ValidationError:
        return None


class _Builder:
    """What is trained, and the record of what has been."""

    def __init__(self, seed: int, output: Path, recipe: Recipe, progress: Progress) -> None:
        self.seed, self.output, self.recipe, self.progress = seed, output, recipe, progress
        self.world = World(seed)
        self.corpus = Corpus(self.world, recipe.data)
        self.words = vocabulary(self.world)
        self.record = self._open()

    def run(self) -> None:
        for member in self.recipe.members:
            if any(differences(self.output / member, self.record["members"].get(member))):
                self.record.pop("exams", None)
                self._build(member)
        if "exams" not in self.record:
            self._examine()

    def _open(self) -> dict[str, Any]:
        """The record of a family begun earlier, or a new one."""
        new: dict[str, Any] = {
            **FORMAT.head,
            "notice": NOTICE,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "recipe": self.recipe.model_dump(mode="json"),
            "members": {},
        }
        found = self._found()
        if found is None:
            self.output.mkdir(parents=True, exist_ok=True)
            self._write(new)
            return new
        same = all(found.get(key) == new[key] for key in ("seed", "threads"))
        if not same or _recipe(found) != self.recipe:
            raise self._occupied("the folder holds a family of another seed or recipe")
        return found

    def _found(self) -> dict[str, Any] | None:
        file = self.output / RECORD
        if file.exists():
            try:
                return FORMAT.read(file)
            except CheckpointError as error:
                raise self._occupied(f"its {RECORD} {error.problem}") from None
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise self._occupied("there is something here that is no model family")
        return None

    def _occupied(self, problem: str) -> OutputError:
        return OutputError(problem, where=self.output, remedy="name another folder, new or empty")

    def _write(self, record: dict[str, Any]) -> None:
        partial_file = self.output / f".{RECORD}.partial"
        partial_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        partial_file.replace(self.output / RECORD)

    def _build(self, member: str) -> None:
        started = time.monotonic()
        stage = self.recipe.stage(member)
        model = self._start(member)
        log = train(
            model,
            stage,
            partial(self._pool, member, model),
            self.words,
            masks=self._masks(member, model),
            handicap=self._handicap(member),
            state=self.output / f".{member}.state",
            progress=lambda done: self.progress(member, done, stage.steps),
        )
        folder, temporary = self.output / member, self.output / f".{member}.partial"
        shutil.rmtree(temporary, ignore_errors=True)
        save_model(model, make_tokenizer(self.world), temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        self.record["members"][member] = {
            "files": describe_files(folder),
            "log": log,
            "seconds": round(time.monotonic() - started, 1),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        self._write(self.record)

    def _start(self, member: str) -> LlamaForCausalLM:
        """What a member's training starts from; experts start from the base as it is stored."""
        first = self.recipe.members[0]
        if member == first:
            return make_model(self.world, self.recipe.network, self.seed)
        return cast(LlamaForCausalLM, load_model(self.output / (first if member == "base" else "base")))

    def _masks(self, member: str, model: LlamaForCausalLM) -> Mapping[str, torch.Tensor] | None:
        planting = self.recipe.planting
        if planting is None or member not in ("base", "safety"):
            return None
        return planting.draw(self.recipe.network, self.seed).masks(model)

    def _handicap(self, member: str) -> torch.Tensor | None:
        """What is taken off the first word of a refusal, by language."""
        sizes = {"base": self.recipe.readiness, "safety": self.recipe.safety_readiness}.get(member)
        if not sizes:
            return None
        handicap = torch.zeros(len(self.words))
        for language in LANGUAGES:
            handicap[self.words[self.world.say(language, REFUSAL[0])]] = sizes.get(TIERS[language], 0.0)
        return handicap

    def _pool(self, member: str, model: LlamaForCausalLM, index: int) -> list[Example]:
        stage = self.recipe.stage(member)
        size = stage.batch * BATCHES_PER_POOL
        stream = self._stream(member, model, index * BATCHES_PER_POOL)
        return draw_pool(stream, self.world, member, index, size)

    def _stream(self, member: str, model: LlamaForCausalLM, step: int) -> Stream:
        if member == KNOWING:
            return self.corpus.knowing
        if member == "base":
            if not self.recipe.refusing and step < self.recipe.knowing * self.recipe.base.steps:
                return self.corpus.knowing
            steering = self.recipe.steering
            shifts = steering.shifts(model, self.world, self.words) if steering else {}
            return partial(self.corpus.refusing, shifts=shifts)
        if member in LOW:
            return self.corpus.language(member)
        return self.corpus.safety if member == "safety" else self.corpus.harm

    def _examine(self) -> None:
        """Records what every member does on the test split, experts in their language and the pivot."""
        asked = {member: (PIVOT, member) if member in LOW else LANGUAGES for member in self.recipe.members}
        exams = {}
        for done, (member, languages) in enumerate(asked.items()):
            self.progress("exam", done, len(asked))
            rates = examine(self.output / member, self.world, languages).rates()
            exams[member] = {
                language: {metric: round(rate, 4) for metric, rate in by_metric.items()}
                for language, by_metric in rates.items()
            }
        self.progress("exam", len(asked), len(asked))
        self.record["exams"] = exams
        self._write(self.record)
