"""What a method is: options that stand in a recipe, and `fit`, which turns sources into an `Edit`.

A method decides and never writes: it reads headers, norms or probes of its sources and returns an edit, which
one engine then plans, applies, explains and undoes for all methods alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.opened import Sources
from polysafe.data.prompts import PromptSet
from polysafe.edits.edit import Decision, Edit, Provenance, SourceRecord
from polysafe.edits.operations import Operation
from polysafe.files.paths import without_places
from polysafe.files.strict import Strict
from polysafe.methods.materials import Materials

if TYPE_CHECKING:
    import torch

    from polysafe.methods.scores import Movement
    from polysafe.methods.validation import Kept, Validation

_COMPUTED_HOW = ("batch_size", "device")
"""Options of several methods that say how, and change nothing of what is meant."""

SourceName = Annotated[str, Field(min_length=1)]
"""Name of a source of the recipe."""

LayerCount = Annotated[int, Field(ge=1)] | None
"""Number of layers that models must have, if any."""


@dataclass(frozen=True)
class Support:
    """What a recipe gives to its methods besides the sources.

    Attributes:
        data: Folder with a folder per set, None where none is named.
        validate: Makes `validation`.
        kept: What is known from a decision that was interrupted.
        dtype: Type that models are computed in, `BF16` and the like; None for that of `probe.model.load_model`.
    """

    data: Path | None = None
    validate: Callable[[], Validation | None] = lambda: None
    kept: Kept | None = None
    dtype: str | None = None

    @property
    def computed(self) -> torch.dtype | None:
        """`dtype` as torch's."""
        return None if self.dtype is None else float_dtype(self.dtype)

    @property
    def evidence(self) -> dict[str, str]:
        """What an edit's evidence says of it: nothing where it is the usual one."""
        return {} if self.dtype is None else {"computed_in": self.dtype}

    @cached_property
    def validation(self) -> Validation | None:
        """What candidates are compared by, None where the recipe has no `validation`.

        Raises:
            DataError: Its prompts cannot be read, are anchors, or are reported on.
        """
        return self.validate()


@dataclass(frozen=True)
class Work:
    """Prompts that a model has to read before a method can decide.

    Attributes:
        what: What for, in a few words.
        model: Name of the source that is run.
        prompts: Number of prompts, over all languages.
        languages: Number of their languages.
        times: How often each is read: once, or for every candidate.
    """

    what: str
    model: str
    prompts: int
    languages: int
    times: int = 1


class Method(Strict, ABC):
    """A method of editing weights. Its fields are the options of its entry in a recipe.

    To add one, write a file in this package (or in any package that names it in the entry-point group
    `polysafe.methods`) with a subclass that sets `name` and `version`, is decorated with `@register`, and
    implements `start`, `uses` and `fit`. Raise the version, and keep the old class, whenever the same options
    would give another edit.

    Attributes:
        name: What a recipe calls it.
        version: Version of what it does.
        titles: Beginning of its labels in results -> what it is called on a page.
        citation: The paper that it is from, as a model card cites it; empty for none.
        baseline: Whether it is one that knows nothing of safety, shown for comparison.
        unmeasured: Options that decide by what was measured, and change nothing of what is measured: a search measures
            once for all their values.
        stage: Place in a stack of edits: 0 for what moves blocks, 1 for units within them, 2 for heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    version: ClassVar[int]
    titles: ClassVar[Mapping[str, str]] = {}
    citation: ClassVar[str] = ""
    baseline: ClassVar[bool] = False
    unmeasured: ClassVar[frozenset[str]] = frozenset()
    stage: ClassVar[int] = 0

    @property
    def label(self) -> str:
        """Name of the method in results and reports."""
        return self.name

    @property
    @abstractmethod
    def start(self) -> str:
        """Name of the source that the edit starts from: what a comparison calls `before`."""

    @property
    @abstractmethod
    def uses(self) -> tuple[str, ...]:
        """Names of all sources that the options refer to, each once."""

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:  # noqa: ARG003
        """What a search varies where nobody says otherwise: option -> its values, as a recipe writes them.

        Args:
            layers: Number of layers of the model.
        """
        return {}

    @classmethod
    def first_entry(cls, there: Materials) -> Mapping[str, Any] | None:  # noqa: ARG003
        """What an entry of this method says in a first recipe, besides what is searched.

        Returns:
            Options; None, as by default, for a method that no first recipe is written for.

        Raises:
            MissingError: It needs something that is not there.
        """
        return None

    def donor(self) -> str:
        """Name of the source whose tokenizer, chat template and generation config the result gets."""
        return self.start

    def fitted(self, data: Path | None = None) -> Iterable[PromptSet]:  # noqa: ARG002
        """Prompts that the method is fitted to, which nothing may be reported on; none for most methods.

        Args:
            data: Folder with a folder per set.

        Raises:
            DataError: A file or a set cannot be read.
        """
        return ()

    def digests(self, data: Path | None = None) -> Iterable[str]:
        """Hashes of what a decision depends on beside options and models: of the prompts that it is fitted to.

        Args:
            data: Folder with a folder per set.

        Raises:
            DataError: A file or a set cannot be read.
        """
        return (prompts.sha256 for prompts in self.fitted(data))

    @abstractmethod
    def fit(self, sources: Sources) -> Edit:
        """Decides.

        Args:
            sources: At least the sources in `uses`.

        Raises:
            MismatchError: The sources do not fit together.
            RecipeError: An option does not fit the sources.
        """

    def fit_with(self, sources: Sources, support: Support) -> Edit:  # noqa: ARG002
        """Decides, with all that a recipe gives; what most methods do not need.

        Args:
            sources: As for `fit`.
            support: Where sets are, and what candidates are compared by.

        Raises:
            PolysafeError: As for `fit`.
        """
        return self.fit(sources)

    def measures(self, sources: Sources) -> Movement | None:  # noqa: ARG002
        """What is read of weights before it decides, which several recipes can read at once; None where nothing is.

        Raises:
            PolysafeError: As for `fit`.
        """
        return None

    def reads(self, sources: Sources) -> Iterator[TensorSpec]:
        """The tensors that are read of weights before it decides, each as often as it is read.

        Raises:
            PolysafeError: As for `fit`.
        """
        moved = self.measures(sources)
        if moved is not None:
            for each in (moved.base, *moved.experts):
                yield from (each.reader.spec(item.tensor) for item in moved.scored)

    @property
    def written_from(self) -> tuple[str, ...]:
        """Names of the sources that a written tensor may be made of."""
        return self.uses

    @property
    def runs_models(self) -> bool:
        """Whether a model may have to be run before it decides."""
        return type(self).work is not Method.work

    def work(self, sources: Sources, support: Support) -> Sequence[Work]:  # noqa: ARG002
        """What a model has to be run for before `fit_with` can decide; nothing where headers and weights say it all.

        Raises:
            PolysafeError: What is to be read cannot be found.
        """
        return ()

    def make_edit(
        self,
        sources: Sources,
        steps: Mapping[str, Operation],
        *,
        decisions: Iterable[Decision] = (),
        notes: Iterable[str] = (),
        warnings: Iterable[str] = (),
        evidence: Mapping[str, Any] | None = None,
        dtype: str | None = None,
    ) -> Edit:
        """The edit of one operation per tensor, with this method as its provenance."""
        provenance = Provenance(
            method=f"{self.name}.v{self.version}",
            label=self.label,
            options=_options(self),
            decisions=tuple(decisions),
            notes=tuple(notes),
            warnings=tuple(warnings),
            evidence=dict(evidence or {}),
        )
        return Edit(
            start=self.start,
            steps={tensor: (operation,) for tensor, operation in steps.items()},
            sources={name: SourceRecord(origin=sources[name].checkpoint.origin) for name in self.uses},
            provenance=(provenance,),
            dtype=dtype,
        )


def _options(method: Method) -> dict[str, Any]:
    """What a file is called belongs to an edit, where it lies does not, nor how it was computed: by default, it says.

    Otherwise the same decision would be another edit elsewhere.
    """
    options: dict[str, Any] = without_places(method.model_dump(mode="json"))
    fields = type(method).model_fields
    return options | {name: fields[name].default for name in _COMPUTED_HOW if name in fields}


CONTROL = "control."
"""What the labels of controls begin with."""


def control_label(of: str, kind: str, seed: int) -> str:
    """The label of a control: `control.sparse_edit.random.0`; only random ones are drawn, and have a seed."""
    return f"{CONTROL}{of}.{kind}" + (f".{seed}" if kind.startswith("random") else "")


def distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    """The names that are given, each once, in order."""
    return tuple(dict.fromkeys(name for name in names if name is not None))
