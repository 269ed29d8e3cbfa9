"""What members of the family in real languages can do: name the topic of a sentence of SIB-200's test part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.evaluate.ability import FOLDER, Ability
from polysafe.evaluate.keys import content_hash
from polysafe.organism.gemma.texts import TOPICS, Texts

if TYPE_CHECKING:
    from polysafe.probe.continuations import Continuations

TASK = "topics"


def measure_topics(
    asked: Continuations, texts: Texts, languages: Sequence[str], run: Path, *, limit: int | None = None
) -> Ability:
    """Asks for topics and writes the answers into the folder of a run; what is there already is not asked again.

    The right answer is right where it is the most probable of the seven topics by the mean log-probability of a token.

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
    pairs = {code: texts.exam_topics(code)[:limit] for code in languages}
    protocol = {
        "questions_sha256": content_hash([[code, *pair] for code, each in pairs.items() for pair in each]),
        "choices": list(TOPICS),
        "scoring": "the right choice has the highest mean log-probability of a token",
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
        means = [each.total / each.tokens for each in found]
        items[code][str(number)] = TOPICS[means.index(max(means))] == topic
    ordered = {code: dict(sorted(each.items(), key=lambda item: int(item[0]))) for code, each in items.items()}
    ability = Ability(TASK, ordered, protocol, dict(asked.identity), ("SIB-200, test part",))
    ability.save(run)
    return ability
