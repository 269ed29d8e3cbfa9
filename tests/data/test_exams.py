"""Benchmarks of ability: the public files with their documented counts, and the same layouts in miniature."""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from polysafe.data.exams import exam_names, load_questions, mgsm, xcopa
from polysafe.data.questions import Question, QuestionSet, require_parallel
from polysafe.errors import DataError
from tests import exams
from tests.shared import DATA, needs_data

LITE = ("en", "id", "ms", "tl", "vi", "zh")
PUBLIC = {
    "belebele": {
        code: 280 if code in {"jv", "su"} else 900 for code in ("en", "id", "th", "vi", "zu", "ig", "jv", "su")
    },
    "global_mmlu_lite": dict.fromkeys(LITE, 400),
    "global_mmlu_lite.dev": dict.fromkeys(LITE, 215),
    "mgsm": dict.fromkeys(mgsm.LANGUAGES, 250),
    "xcopa": dict.fromkeys(xcopa.LANGUAGES, 500),
    "xcopa.validation": dict.fromkeys(xcopa.LANGUAGES, 100),
}


@needs_data
@pytest.mark.parametrize("name", PUBLIC)
def test_the_public_files_have_their_documented_counts(name: str) -> None:
    found = load_questions(name, data=DATA)
    assert found.name == name
    assert dict(Counter(each.language for each in found.questions)) == PUBLIC[name]
    rows = Counter(each.parallel for each in found.questions)
    assert len(rows) == max(PUBLIC[name].values())
    short = [code for code, count in PUBLIC[name].items() if count < len(rows)]
    assert set(rows.values()) <= {len(PUBLIC[name]), len(PUBLIC[name]) - len(short)}


@needs_data
def test_the_public_files_are_parallel() -> None:
    """Right answers agree over languages, although two files of Belebele are in another order."""
    for name, languages in (("belebele", ("en", "id", "th", "vi", "zu", "ig")), ("mgsm", None)):
        golds: dict[str, set[int]] = {}
        for each in load_questions(name, data=DATA, languages=languages).questions:
            golds.setdefault(each.parallel, set()).add(each.gold)
        assert {len(found) for found in golds.values()} == {1}


@needs_data
def test_the_part_in_another_shape_is_the_same_questions() -> None:
    """Numbers in a passage are the same in translation, so that rows that had slipped would show."""
    found = load_questions("belebele", data=DATA, languages=["en", "jv"])
    digits = {
        code: {
            each.parallel: sorted("".join(filter(str.isdigit, each.context)))
            for each in found.questions
            if each.language == code
        }
        for code in found.languages
    }
    assert sum(digits["jv"][name] == digits["en"][name] for name in digits["jv"]) > 270


@needs_data
def test_thousands_are_no_decimals() -> None:
    found = load_questions("mgsm", data=DATA, languages=["te"])
    assert {2125, 114200, 276000, 5600} <= {each.gold for each in found.questions}
    assert found.questions[0].choices == ()


@needs_data
def test_global_mmlu_lite_has_subjects_and_categories() -> None:
    found = load_questions("global_mmlu_lite", data=DATA, languages=["tl"])
    assert {each.category for each in found.questions} == {
        "Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences"
    }  # fmt: skip
    assert all(each.parallel.startswith(f"{each.subject}/test/") for each in found.questions)


def test_every_set_in_miniature(tmp_path: Path) -> None:
    data = exams.all_of_them(tmp_path)
    found = {name: load_questions(name, data=data) for name in exam_names() if name != "global_mmlu"}
    assert {name: each.languages for name, each in found.items()} == {
        "belebele": ("en", "th", "jv"),
        "global_mmlu_lite": ("en", "vi"),
        "mgsm": ("en", "bn", "te", "th"),
        "mmmlu": ("sw", "zh"),
        "xcopa": ("sw", "th"),
    }
    assert found["mgsm"].questions[1] == Question("mgsm", "1", "en", 'What is "1" in en?', 2125)
    assert found["belebele"].questions[0] == Question(
        "belebele",
        "https://example.org/0#1",
        "en",
        "Question 0 in en?",
        0,
        tuple(f"en choice {place} of 0" for place in range(1, 5)),
        "Passage 0 in en.",
    )
    assert found["xcopa"].questions[1].question == "effect"
    assert len(load_questions("xcopa.validation", data=data)) == 2


def test_rows_in_another_order_are_paired_by_name(tmp_path: Path) -> None:
    exams.belebele(tmp_path / "belebele")
    found = load_questions("belebele", data=tmp_path)
    golds = {(each.language, each.parallel): each.gold for each in found.questions}
    assert all(golds["th", name] == gold for (code, name), gold in golds.items() if code == "en")


def test_seahelms_rows_are_those_of_the_english_file(tmp_path: Path) -> None:
    folder = tmp_path / "belebele"
    exams.belebele(folder)
    exams.seahelm(folder)
    found = {each.parallel: each for each in load_questions("belebele", data=tmp_path, languages=["jv"]).questions}
    assert set(found) == {"https://example.org/2#1", "https://example.org/0#2"}
    assert found["https://example.org/2#1"].choices[0] == "jv choice 1 of 4"
    (folder / "eng_Latn.jsonl").unlink()
    with pytest.raises(DataError, match=r"put eng_Latn\.jsonl"):
        load_questions("belebele", data=tmp_path, languages=["jv"])


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_the_hubs_layout_gives_the_same_questions(tmp_path: Path, kind: str) -> None:
    exams.all_of_them(tmp_path / "local")
    hub = tmp_path / "hub"
    for code in ("en", "vi"):
        rows = [exams.global_mmlu_row(code, row, nested=False) for row in range(4)]
        table(hub / "global_mmlu_lite" / code, rows, kind)
    for code in ("en", "bn", "th", "te"):
        numbers = [
            {"question": f'What is "{row}" in {code}?', "answer_number": exams.mgsm_gold(row)} for row in range(5)
        ]
        table(hub / "mgsm" / code, numbers, kind)
    for code in ("en", "th"):
        table(hub / "belebele" / exams.CODES[code], [exams.belebele_row(code, row) for row in range(6)], kind)
    for name in ("global_mmlu_lite", "mgsm", "belebele"):
        found = (
            load_questions(name, data=tmp_path / each, languages=["en", "vi", "bn", "th"]) for each in ("local", "hub")
        )
        local, other = ({each.id: each for each in one.questions} for one in found)
        assert local == other


def table(folder: Path, rows: list[dict[str, object]], kind: str) -> None:
    folder.mkdir(parents=True)
    if kind == "jsonl":
        exams.lines(folder / "test-00000.jsonl", rows)
        return
    pa, csv, parquet = map(import_module, ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    write = parquet.write_table if kind == "parquet" else csv.write_csv
    write(pa.Table.from_pylist(rows), folder / f"test-00000.{kind}")


def test_global_mmlu_is_read_from_the_hub(tmp_path: Path) -> None:
    rows = [exams.global_mmlu_row("tl", row, nested=False) for row in range(4)]
    table(tmp_path / "global_mmlu" / "fil", rows, "parquet")
    found = load_questions("global_mmlu", data=tmp_path, languages=["Filipino", "sw"])
    assert found.languages == ("tl",)
    assert found.questions[1].subject == "world_religions"


def test_subjects_that_are_names_of_files(tmp_path: Path) -> None:
    exams.mmmlu(tmp_path / "mmmlu")
    names = {each.language: [] for each in load_questions("mmmlu", data=tmp_path).questions}  # type: dict[str, list[str]]
    for each in load_questions("mmmlu", data=tmp_path).questions:
        names[each.language].append(each.parallel)
    assert names["sw"] == names["zh"]
    assert names["sw"][:3] == ["abstract_algebra/test/0", "college_mathematics/test/0", "abstract_algebra/test/1"]


def test_a_limit_keeps_languages_parallel(tmp_path: Path) -> None:
    exams.belebele(tmp_path / "belebele")
    exams.seahelm(tmp_path / "belebele", rows=(5, 3))
    found = load_questions("belebele", data=tmp_path, limit=3)
    rows = Counter(each.parallel for each in found.questions)
    assert sorted(rows.values()) == [2, 3, 3]
    assert {rows["https://example.org/2#2"], rows["https://example.org/1#2"]} == {3}


def test_files_that_are_not_what_they_have_to_be(tmp_path: Path) -> None:
    data = exams.all_of_them(tmp_path)
    with pytest.raises(DataError, match="did you mean 'belebele'"):
        load_questions("belebelle", data=data)
    with pytest.raises(DataError, match="has no question in ko"):
        load_questions("mgsm", data=data, languages=["ko"])
    with pytest.raises(DataError, match="has no folder 'global_mmlu'"):
        load_questions("global_mmlu", data=data)
    with pytest.raises(DataError, match="needs a commit"):
        load_questions("xcopa")
    row = exams.belebele_row("en", 0)
    for change, problem in (
        ({"correct_answer_num": "5"}, "row 1: the right answer is '5', none of 1234"),
        ({"mc_answer2": "  "}, "row 1 has an empty text"),
    ):
        exams.lines(data / "belebele" / "eng_Latn.jsonl", [row | change])
        with pytest.raises(DataError, match=problem):
            load_questions("belebele", data=data, languages=["en"])
    (data / "mgsm" / "mgsm_en.tsv").write_text("a\tten\n")
    with pytest.raises(DataError, match="row 1 has no question or no whole number"):
        load_questions("mgsm", data=data)
    exams.lines(data / "xcopa" / "th" / "test.th.jsonl", [{"premise": "a", "question": "why"}])
    with pytest.raises(DataError, match="has no column 'idx'"):
        load_questions("xcopa", data=data)


def test_rows_that_have_slipped_are_refused(tmp_path: Path) -> None:
    exams.mgsm(tmp_path / "mgsm", count=12)
    file = tmp_path / "mgsm" / "mgsm_th.tsv"
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.raises(DataError, match="only 0 of 11 right answers in 'th' are those in 'en'"):
        load_questions("mgsm", data=tmp_path)
    require_parallel((), "nowhere")


def test_a_question_that_is_there_twice(tmp_path: Path) -> None:
    one = Question("mgsm", "0", "en", "?", 1)
    with pytest.raises(DataError, match="'mgsm/0/en' is there twice"):
        QuestionSet("mgsm", (one, one))
    other = QuestionSet("mgsm", (one,)).sha256
    assert other != QuestionSet("mgsm", (Question("mgsm", "0", "en", "?", 2),)).sha256
    assert json.dumps(other)
