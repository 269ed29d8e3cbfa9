"""What an attack is: its description and the function that rewrites prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from polysafe.data.languages import is_private
from polysafe.data.organism import ORGANISM
from polysafe.data.prompts import Prompt, PromptSet
from polysafe.errors import DataError
from polysafe.extras import install_line

Translate = Callable[[Sequence[str], str, str], Sequence[str]]
"""Texts, source and target language -> the texts in the target, in order; empty where one could not be translated."""

PLUS = "+"
"""Between the name of a set and that of the attack that its prompts were rewritten by."""


@dataclass(frozen=True, slots=True)
class Without:
    """A prompt that an attack cannot be made of.

    Attributes:
        reason: Why, in words that follow the name of a language.
    """

    reason: str


@dataclass(frozen=True)
class Material:
    """What attacks may use beside the prompts.

    Attributes:
        rows: Name of a row -> language -> its text, in every language of the set, asked or not.
        pivot: Language that the others are compared with.
        translate: Translates, None where nobody was named.
    """

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pivot: str = "en"
    translate: Translate | None = None

    @classmethod
    def of(cls, whole: PromptSet, pivot: str = "en", translate: Translate | None = None) -> Material:
        """The rows of a set in all of its languages."""
        rows: dict[str, dict[str, str]] = {}
        for prompt in whole.prompts:
            rows.setdefault(prompt.parallel, {})[prompt.language] = prompt.text
        return cls(rows, pivot, translate)

    def text(self, prompt: Prompt, language: str) -> str | None:
        """The prompt in another language, None where the set lacks it there."""
        return self.rows.get(prompt.parallel, {}).get(language)


Rewrite = Callable[[Sequence[Prompt], Material], Iterable[str | Without]]
"""Prompts of one set and the material -> for each prompt, in order, what is asked instead, or why it cannot be made.

The same prompts and the same material give the same texts: nothing is drawn at random, and no clock is read.
"""


@dataclass(frozen=True)
class Attack:
    """A way of rewriting prompts.

    Attributes:
        name: Name.
        version: Raised when the same prompt would be rewritten otherwise.
        title: What it does, in a few words.
        source: Paper that measured it.
        rewrite: The function that rewrites.
        elsewhere: What garak, HarmBench and others call it; empty where they have none like it.
        english: Whether it has English words of its own.
        parallel: Whether it needs prompts of other languages of the set.
        translated: Whether it needs a translator.
        package: Package that it needs; empty where it needs none.
    """

    name: str
    version: int
    title: str
    source: str
    rewrite: Rewrite
    elsewhere: str = ""
    english: bool = False
    parallel: bool = False
    translated: bool = False
    package: str = ""

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name}.v{self.version}"

    def require_package(self) -> None:
        """Refuses an attack whose package is not installed.

        Raises:
            DataError: It is not.
        """
        if self.package and find_spec(self.package) is None:
            raise DataError(
                f"the attack {self.name!r} needs the package {self.package}", remedy=install_line(self.package)
            )


def rewritten(attack: Attack, asked: PromptSet, material: Material) -> PromptSet:
    """The prompts of a set as an attack asks them; names of rows, languages and kinds stay.

    Every prompt remembers what it was made of (`Prompt.plain`): that is what judges read, and what tells whether a
    prompt was fitted to. Prompts that the attack cannot be made of are counted in `dropped`.

    Args:
        attack: The attack.
        asked: The prompts.
        material: What it may use beside them.

    Raises:
        DataError: The attack can be made of none of them, its package is not installed, or it is worded in English and
            a language is private.
    """
    attack.require_package()
    _require_readable(attack, asked)
    added = f"{PLUS}{attack.name}"
    kept: list[Prompt] = []
    dropped: Counter[str] = Counter()
    for prompt, text in zip(asked.prompts, attack.rewrite(asked.prompts, material), strict=True):
        if isinstance(text, Without):
            dropped[f"{prompt.language} {text.reason}"] += 1
        else:
            kept.append(replace(prompt, set=f"{prompt.set}{added}", text=text, plain=prompt.text))
    if not kept:
        raise DataError(
            f"the attack {attack.name!r} can be made of no prompt: {'; '.join(dropped)}",
            where=asked.name,
            remedy="name a set that is parallel in several languages, other languages, or another attack",
        )
    return replace(asked, name=f"{asked.name}{added}", prompts=tuple(kept), dropped=tuple(sorted(dropped.items())))


def _require_readable(attack: Attack, asked: PromptSet) -> None:
    private = asked.name == ORGANISM or any(map(is_private, asked.languages))
    if attack.english and private:
        raise DataError(
            f"the attack {attack.name!r} is worded in English, and who speaks invented languages reads none",
            where=asked.name,
            remedy="name an attack without words of its own: code_switching",
        )
