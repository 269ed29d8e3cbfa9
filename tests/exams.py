"""Small copies of the benchmarks of ability, with questions of our own, in the layouts of the public files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

CODES = {"en": "eng_Latn", "th": "tha_Thai", "bn": "ben_Beng"}


def lines(path: Path, rows: Iterable[Mapping[str, Any]], ends: str = "\n") -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + ends for row in rows), encoding="utf-8", newline="")
    return path


def belebele(folder: Path, languages: Sequence[str] = ("en", "th"), count: int = 6) -> None:
    """Questions about passages, the rows of every language but the first in another order."""
    for number, code in enumerate(languages):
        rows = [belebele_row(code, each) for each in range(count)]
        lines(folder / f"{CODES[code]}.jsonl", rows[::-1] if number else rows)


def belebele_row(code: str, row: int) -> dict[str, Any]:
    """One of them; the right choice is the same in every language."""
    choices = {f"mc_answer{place}": f"{code} choice {place} of {row}" for place in range(1, 5)}
    return {
        "link": f"https://example.org/{row // 2}",
        "question_number": row % 2 + 1,
        "flores_passage": f"Passage {row // 2} in {code}.",
        "question": f"Question {row} in {code}?",
        **choices,
        "correct_answer_num": str(row % 4 + 1),
        "dialect": CODES[code],
    }


def seahelm(folder: Path, rows: Sequence[int] = (4, 1)) -> None:
    """Some of them in Javanese, in SEA-HELM's shape, the choices in another order."""
    lines(folder / "seahelm" / "jv_belebele.jsonl", [_seahelm_row(row) for row in rows])
    lines(folder / "seahelm" / "jv_belebele_examples.jsonl", [_seahelm_row(0)])


def _seahelm_row(row: int) -> dict[str, Any]:
    right = belebele_row("en", row)["correct_answer_num"]
    order = [right, *(place for place in "1234" if place != right)]
    choices = {f"choice{new}": f"jv choice {old} of {row}" for new, old in enumerate(order, 1)}
    texts = {"text": f"Passage {row // 2} in jv.", "question": f"Question {row} in jv?", **choices}
    return {"id": row, "label": "A", "prompts": [texts], "metadata": {"language": "jv"}}


def global_mmlu_row(code: str, row: int, *, nested: bool) -> dict[str, Any]:
    """A question in the hub's shape or in SEA-HELM's."""
    subject, category = (("astronomy", "STEM"), ("world_religions", "Humanities"))[row % 2]
    about = {"sample_id": f"{subject}/test/{row}", "subject": subject, "subject_category": category}
    texts = {"question": f"Question {row} in {code}?", **{f"option_{o}": f"{code} {o} of {row}" for o in "abcd"}}
    right = "ABCD"[row % 4]
    if nested:
        return {"id": row, "label": right, "prompts": [{**texts, "subject": subject}], "metadata": about}
    return {**about, **texts, "answer": right}


def global_mmlu_lite(folder: Path, languages: Sequence[str] = ("en", "vi"), count: int = 4) -> None:
    """SEA-HELM's files."""
    for code in languages:
        rows = [global_mmlu_row(code, row, nested=True) for row in range(count)]
        lines(folder / f"global_mmlu_lite_{code}_test.jsonl", rows)
        lines(folder / f"global_mmlu_lite_{code}_dev.jsonl", rows[:1])


def mgsm(folder: Path, languages: Sequence[str] = ("en", "bn", "th", "te"), count: int = 5) -> None:
    """Numbers, one of them with a comma; no header and no quoting."""
    folder.mkdir(parents=True, exist_ok=True)
    for code in languages:
        rows = [f'What is "{row}" in {code}?\t{mgsm_gold(row):,}\r\n' for row in range(count)]
        (folder / f"mgsm_{code}.tsv").write_text("".join(rows), encoding="utf-8", newline="")


def mgsm_gold(row: int) -> int:
    """The answer to a row."""
    return 2125 if row == 1 else 10 + row


def xcopa(folder: Path, languages: Sequence[str] = ("sw", "th"), count: int = 4) -> None:
    """The repository's folders, with Windows line ends."""
    for code in languages:
        rows = [
            {
                "premise": f"Premise {row} in {code}.",
                "choice1": f"One {row} in {code}.",
                "choice2": f"Two {row} in {code}.",
                "question": ("cause", "effect")[row % 2],
                "label": row % 2,
                "idx": row,
                "changed": False,
            }
            for row in range(count)
        ]
        lines(folder / code / f"test.{code}.jsonl", rows, "\r\n")
        lines(folder / code / f"val.{code}.jsonl", rows[:1], "\r\n")


def mmmlu(folder: Path, count: int = 4) -> None:
    """The hub's files, with names of files as subjects in one of them, and its card."""
    card = "configs:\n"
    for config, subject in (("SW_KE", "{}_test.csv_sw-KE.csv"), ("ZH_CN", "{}")):
        file = folder / "test" / f"mmlu_{config.replace('_', '-')}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["", "Question", "A", "B", "C", "D", "Answer", "Subject"])
            for row in range(count):
                name = ("abstract_algebra", "college_mathematics")[row % 2]
                choices = [f"{config} {letter} of {row}" for letter in "abcd"]
                writer.writerow([row, f"Question {row} in {config}?", *choices, "ABCD"[row % 4], subject.format(name)])
        card += f"- config_name: {config}\n  data_files:\n  - split: test\n    path: test/{file.name}\n"
    (folder / "README.md").write_text(f"---\n{card}---\n# MMMLU\n")


def all_of_them(folder: Path) -> Path:
    """Every benchmark, in a folder of its own each."""
    belebele(folder / "belebele")
    seahelm(folder / "belebele")
    global_mmlu_lite(folder / "global_mmlu_lite")
    mgsm(folder / "mgsm")
    xcopa(folder / "xcopa")
    mmmlu(folder / "mmmlu")
    return folder
