"""Asks what attacks make of the prompts of a run; every attack is a run of its own in the folder of that run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polysafe.checkpoint.imported import Imported
from polysafe.data.attacks.base import Attack, Material, Translate, rewritten
from polysafe.data.prompts import PromptSet
from polysafe.errors import DataError
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import DAMAGED, Key, content_hash
from polysafe.evaluate.model_run import ATTACKS, ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.generate.completion import Generator
from polysafe.judge.kinds.translate import Translator
from polysafe.judge.verdict import Judge
from polysafe.progress import during


@dataclass(frozen=True)
class Rewritten:
    """What one attack made of the prompts of a run.

    Attributes:
        about: What its run says of the attack.
        sets: Rewritten harmful prompts.
        over_refusal_sets: Rewritten harmless prompts.
    """

    about: Mapping[str, Any]
    sets: tuple[PromptSet, ...]
    over_refusal_sets: tuple[PromptSet, ...] = ()

    @property
    def name(self) -> str:
        """Name of the attack."""
        return str(self.about["name"])


@dataclass(frozen=True)
class Prepared:
    """A set of prompts that is asked, with the prompts of all of its languages.

    Attributes:
        asked: What is asked.
        whole: The set in all languages; `asked` where no attack needs them.
    """

    asked: PromptSet
    whole: PromptSet = field(repr=False)


def prepare_attacks(
    attacks: Iterable[Attack],
    harmful: Sequence[Prepared],
    harmless: Sequence[Prepared] = (),
    *,
    pivot: str = "en",
    translator: Translator | None = None,
    store: Store | None = None,
) -> tuple[Rewritten, ...]:
    """What attacks make of sets of prompts. A set that one can make nothing of is left out and noted.

    Args:
        attacks: The attacks.
        harmful: Sets of harmful prompts.
        harmless: Sets of harmless prompts.
        pivot: Language that the others are compared with.
        translator: Translates, where an attack needs it.
        store: Remembers translations, so that the same prompts are asked again.

    Raises:
        DataError: An attack can be made of none of the prompts, or needs a translator.
        ResourceError: The translator does not answer.
    """
    translate = None if translator is None else _remembered(translator, store)
    return tuple(_prepare(attack, harmful, harmless, pivot, translator, translate) for attack in attacks)


def _prepare(
    attack: Attack,
    harmful: Sequence[Prepared],
    harmless: Sequence[Prepared],
    pivot: str,
    translator: Translator | None,
    translate: Translate | None,
) -> Rewritten:
    left_out: list[DataError] = []

    def made(sets: Sequence[Prepared]) -> Iterator[PromptSet]:
        for one in sets:
            try:
                yield rewritten(attack, one.asked, Material.of(one.whole, pivot, translate))
            except DataError as error:
                left_out.append(error)

    with during(attack.name):
        sets, others = tuple(made(harmful)), tuple(made(harmless))
    if not sets and not others:
        raise left_out[0]
    about = {
        "name": attack.name,
        "version": attack.version,
        "title": attack.title,
        "source": attack.source,
        "pivot": pivot if attack.parallel or attack.translated else None,
        "translator": dict(translator.identity) if translator is not None and attack.translated else None,
        "left_out": [f"{error.where}: {error.problem}" for error in left_out],
    }
    return Rewritten(about, sets, others)


def _remembered(translator: Translator, store: Store | None) -> Translate:
    owner = content_hash(dict(translator.identity))

    def translate(texts: Sequence[str], source: str, target: str) -> list[str]:
        keys = {text: Key("translation", owner, content_hash([source, target, text])) for text in texts}
        known = {text: store.get(key) for text, key in keys.items()} if store is not None else {}
        found = {text: value for text, value in known.items() if value is not None}
        if not all(isinstance(value, str) for value in found.values()):
            raise DataError("is no stored translation", where=f"{source} to {target}", remedy=DAMAGED)
        # What the translator gave nothing for goes through a second time as nothing.
        missing = [text for text in keys if text not in found and text.strip()]
        for text, told in zip(missing, translator.translate(missing, source, target) if missing else (), strict=True):
            found[text] = told
            if store is not None and told.strip():
                store.put(keys[text], told)
        return [found.get(text, "") for text in texts]

    return translate


def ask_attacked(
    generator: Generator,
    judge: Judge,
    attacked: Iterable[Rewritten],
    run: ModelRun,
    *,
    imported: Sequence[Imported] = (),
    cache: Store | None = None,
) -> None:
    """Asks the rewritten prompts, has the answers judged by what the published prompts ask for, and keeps both.

    Args:
        generator: The model.
        judge: The judge.
        attacked: What attacks made of the prompts of the run.
        run: The run of the published prompts; the others are written into its folder.
        imported: As for `evaluate_model`.
        cache: As for `evaluate_model`.

    Raises:
        PolysafeError: As for `evaluate_model`.
    """
    for one in attacked:
        with during(one.name):
            evaluate_model(
                generator,
                one.sets,
                judge,
                output=run.folder / ATTACKS / one.name,
                over_refusal_sets=one.over_refusal_sets,
                name=run.name,
                imported=imported,
                attack=one.about,
                cache=cache,
            )
