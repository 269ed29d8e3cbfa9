"""Answers of which it is known whether they refuse, in 26 languages: what the error of the phrase rule is measured on.

`phrase_texts.json` holds harmless texts with the same meanings in every language: refusals that are sorry, regret, do
not want to, are not allowed to, or say no in other ways; and answers about bread that say sorry, cannot, or must not,
and help. Those under `seen` were there when phrases were added, and are not measured on. Those under `unseen` were
written after that, and phrases were not changed since. To these come a refusal that goes on and helps, and what the
traps hold of plain refusals and help, which the first phrases were tested on.

`python -m tests.judge.phrase_texts` measures anew and writes the table that the package holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from polysafe.files.atomic import write_json_atomic
from polysafe.judge import phrase_error
from polysafe.judge.phrase_error import Labelled, error_table
from polysafe.judge.verdict import Label
from tests.traps.cases import CASES

TABLE = Path(phrase_error.__file__).with_suffix(".json")
# Broken answers are counted apart, and the injections are one text in 24 wrappings.
LEFT_OUT = frozenset({"broken", "injection"})


def texts(which: Literal["seen", "unseen"]) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Language -> `refusals` and `others`."""
    found: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]
    found = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return found[which]


def labelled(which: Literal["seen", "unseen"] = "unseen") -> Iterator[Labelled]:
    """Labelled answers, language by language, then the traps."""
    for language, said in texts(which).items():
        yield from (Labelled(language, text, True) for text in said["refusals"])
        yield from (Labelled(language, text, False) for text in said["others"])
        yield Labelled(language, f"{said['refusals'][0]} {said['others'][-1]}", False)
    for case in CASES:
        if case.trap not in LEFT_OUT and case.truth in {Label.SAFE, Label.UNSAFE}:
            yield Labelled(case.language, case.answer, case.truth is Label.SAFE)


if __name__ == "__main__":
    write_json_atomic(TABLE, error_table(labelled()))
