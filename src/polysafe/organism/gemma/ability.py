"""What members of the family in real languages can do: name the topic of a sentence, and translate into a language."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.evaluate.ability import FOLDER, Ability
from polysafe.evaluate.keys import content_hash
from polysafe.evaluate.numbers import BITS, Numbers
from polysafe.organism.gemma.texts import TOPICS, Texts, translation_prompt

if TYPE_CHECKING:
    from polysafe.probe.continuations import Continues

TASK = "topics"
"""Every second sentence is asked: 102 of 204 in each language."""


def measure_topics(
    asked: Continues, texts: Texts, languages: Sequence[str], run: Path, *, limit: int | None = None
) -> Ability:
    """Asks for topics and writes the answers into the folder of a run; what is there already is not asked again.

    An answer is right where it is the most probable of the seven topics. (By the mean of its tokens it would be
    `science/technology` every time: after its first token, the others are certain.)

    Args:
        asked: The model.
        texts: Where the sentences come from.
        languages: Languages of the run.
        run: Folder of the run.
        limit: Most sentences of a language.

    Raises:
        DataError: A file of sentences is missing.
        OutputError: The ability cannot be written.
    """
    pairs = {code: texts.exam_topics(code)[::2][:limit] for code in languages}
    protocol = {
        "questions_sha256": content_hash([[code, *pair] for code, each in pairs.items() for pair in each]),
        "choices": list(TOPICS),
        "scoring": "the right choice has the highest log-probability",
        "languages": list(languages),
    }
    file = run / FOLDER / f"{TASK}.json"
    if file.is_file():
        done = Ability.load(file)
        if (dict(done.protocol), dict(done.model)) == (protocol, dict(asked.identity)):
            return done
    items: dict[str, dict[str, bool]] = {code: {} for code in languages}
    rows = [(code, number, *pair) for code, each in pairs.items() for number, pair in enumerate(each)]
    for place, found in asked.score([(prompt, TOPICS) for _, _, prompt, _ in rows]):
        code, number, _, topic = rows[place]
        totals = [each.total for each in found]
        items[code][str(number)] = TOPICS[totals.index(max(totals))] == topic
    ordered = {code: dict(sorted(each.items(), key=lambda item: int(item[0]))) for code, each in items.items()}
    ability = Ability(TASK, ordered, protocol, dict(asked.identity), ("SIB-200, test part",))
    ability.save(run)
    return ability


def measure_bits(
    asked: Continues, texts: Texts, languages: Sequence[str], run: Path, *, limit: int | None = None
) -> Numbers:
    """Reads how well a model predicts translations of news, and writes it into the folder of a run.

    A number is the negative log-probability, to base 2, of a human translation of a sentence of NTREX after the demand
    to translate it, divided by its characters. What is there already is not measured again.

    Args:
        asked: The model.
        texts: Where the sentences come from.
        languages: Languages of the run; English, which is translated from, is left out.
        run: Folder of the run.
        limit: Most sentences of a language.

    Raises:
        DataError: A file of sentences is missing.
        OutputError: The folder holds such numbers, measured otherwise; or it cannot be written.
    """
    pairs = {code: texts.exam_news(code)[:limit] for code in languages if code != "en"}
    rows = [(code, str(number), *pair) for code, each in pairs.items() for number, pair in enumerate(each)]
    protocol = {
        "texts_sha256": content_hash([list(row) for row in rows]),
        "scoring": "bits of the translation after the demand to translate, by its characters",
    }
    model = dict(asked.identity)
    done = Numbers.measured(run, "bits_per_character", protocol, model)
    if done is not None:
        return done
    items: dict[str, dict[str, float]] = {code: {} for code in pairs}
    for place, (found,) in asked.score(
        [(translation_prompt(code, english), (other,)) for code, _, english, other in rows]
    ):
        code, number, _, other = rows[place]
        items[code][number] = -found.total / math.log(2) / len(other)
    values = {(code, BITS): dict(sorted(each.items(), key=lambda item: int(item[0]))) for code, each in items.items()}
    numbers = Numbers("bits_per_character", values, protocol, model, ("bits per character: translations of NTREX",))
    numbers.save(run)
    return numbers
