"""Sheets go out blinded and come back checked; what people say is counted, and judged answers are held against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from polysafe.annotate.key import Key
from polysafe.annotate.sheets import CHOICES, shown
from polysafe.cli.app import app
from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.evaluate.model_run import ModelRun
from polysafe.judge.calibrate import Calibration, read_examples
from polysafe.report.notebook import Run
from polysafe.workflows.annotate import Imported, export_sheets, import_sheets
from tests.annotate.runs import MODELS, as_judged, fill, read_csv, two_runs
from tests.attacks.answers import ANSWERS


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [run.folder for run in two_runs(tmp_path)]


@pytest.fixture
def sheets(runs: list[Path], tmp_path: Path) -> Path:
    export_sheets(runs, tmp_path / "out", raters=["ana", "ben"])
    return tmp_path / "out"


def fill_all(folder: Path, label: Callable[[dict[str, str]], str] = as_judged) -> None:
    for file in folder.rglob("*.csv"):
        fill(file, label)


def take(folder: Path, *given: Path, partial: bool = False) -> Imported:
    return import_sheets(folder, given, folder.parent / "labels", partial=partial)


def refusal(folder: Path, *given: Path) -> str:
    with pytest.raises(DataError) as caught:
        take(folder, *given)
    assert not (folder.parent / "labels").exists()
    return str(caught.value)


def test_nothing_on_a_sheet_says_whose_answer_it_is(runs: list[Path], sheets: Path) -> None:
    key = Key.load(sheets)
    files = sorted(file for file in sheets.rglob("*") if file.is_file() and file.name != "key.json")
    assert [file.relative_to(sheets / "sheets").as_posix() for file in files] == [
        f"{rater}/{language}.{kind}"
        for rater in ("ana", "ben")
        for language in ("en", "sw")
        for kind in ("csv", "html")
    ]
    for file in files:
        text = file.read_text(encoding="utf-8")
        hidden = [*MODELS, "fake-judge", *(run.records_sha256 for run in key.runs), *map(str, runs)]
        assert not [word for word in hidden if word in text]
    assert {tuple(row) for row in read_csv(files[0])} == {
        ("rater", "id", "language", "prompt", "answer", "label", "note")
    }


def test_answers_of_models_are_mixed_and_alike_ones_are_read_once(sheets: Path) -> None:
    key = Key.load(sheets)
    for language in ("en", "sw"):
        items = key.of_language(language)
        assert len(items) == 10  # six prompts, two models, two answers alike
        assert [len(item.given) for item in items].count(2) == 2
        models = [item.given[0].run for item in items if len(item.given) == 1]
        assert models not in (sorted(models), sorted(models, reverse=True))
        orders = [
            [row["id"] for row in read_csv(sheets / "sheets" / who / f"{language}.csv")] for who in ("ana", "ben")
        ]
        assert sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != orders[1]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(runs: list[Path], tmp_path: Path) -> None:
    found = {}
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        export_sheets(runs, tmp_path / name, raters=["ana"], seed=seed, limit=4)
        files = sorted((tmp_path / name).rglob("*"))
        found[name] = {file.relative_to(tmp_path / name): file.read_bytes() for file in files if file.is_file()}
    assert found["one"] == found["two"]
    assert found["one"].keys() == found["three"].keys()
    assert found["one"] != found["three"]
    assert [len(Key.load(tmp_path / "one").of_language(code)) for code in ("en", "sw")] == [4, 4]


def test_labels_become_examples_and_the_error_of_the_judge(sheets: Path) -> None:
    fill_all(sheets, lambda row: "safe" if "other answer 1 " in row["answer"] else as_judged(row))
    found = take(sheets)
    examples = read_examples(found.folder / "labels.jsonl")
    assert len(examples) == 20
    key = {item.id: item for item in found.key.items}
    rows = [json.loads(line) for line in (found.folder / "labels.jsonl").read_text().splitlines()]
    assert all((row["prompt"], row["answer"]) == (key[row["id"]].prompt, key[row["id"]].answer) for row in rows)
    counts = Calibration.load(found.folder / "calibration.json").languages["sw"]
    unsafe = sum("<unsafe>" in item.answer for item in found.key.of_language("sw"))
    assert (counts.found, counts.missed, counts.cleared, counts.accused) == (unsafe - 1, 0, 10 - unsafe, 1)
    assert {(each.coefficient, each.of, each.value) for each in found.people.agreements} == {
        (coefficient, of, 1.0) for coefficient in ("kappa", "alpha") for of in ("label", "unsafe")
    }
    assert not (found.folder / "disagreements.csv").exists()


def test_disagreements_are_listed_settled_and_never_printed(sheets: Path, tmp_path: Path) -> None:
    fill_all(sheets / "sheets" / "ana")
    fill_all(sheets / "sheets" / "ben", lambda row: "invalid" if "answer 4 " in row["answer"] else as_judged(row))
    result = call("annotate", "import", sheets, "-o", tmp_path / "labels")
    assert result.exit_code == 0, result.output
    assert "4 answers have no label of most raters" in result.stderr
    assert "answer 4" not in result.output
    sheet = tmp_path / "labels" / "disagreements.csv"
    assert {row["note"] for row in read_csv(sheet)} == {"ana: safe; ben: invalid"}
    assert len((tmp_path / "labels" / "labels.jsonl").read_text().splitlines()) == 16
    fill(sheet, lambda row: "invalid")
    settled = import_sheets(sheets, [sheets / "sheets", sheet], tmp_path / "settled")
    assert list(map(str, settled.result.labels.values())).count("invalid") == 4
    assert len(settled.result.disagreements) == 4


def test_most_raters_decide_and_who_cannot_tell_does_not_count(runs: list[Path], tmp_path: Path) -> None:
    export_sheets(runs, tmp_path / "out", raters=["a", "b", "c"], languages=["en"], limit=3)
    said = {"a": ["safe", "safe", "unsafe"], "b": ["safe", "unsafe", "unsure"], "c": ["Unsafe ", "invalid", "unsure"]}
    names = [item.id for item in Key.load(tmp_path / "out").items]
    for rater, labels in said.items():
        given = dict(zip(names, labels, strict=True))
        fill(tmp_path / "out" / "sheets" / rater / "en.csv", lambda row, given=given: given[row["id"]])  # type: ignore[misc]
    found = take(tmp_path / "out")
    assert [found.result.labels.get(name) for name in names] == ["safe", None, "unsafe"]
    assert {each.raters for each in found.people.agreements} == {("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")}


def test_everything_that_is_wrong_is_named_at_once_without_its_text(sheets: Path) -> None:
    fill_all(sheets)
    file = sheets / "sheets" / "ana" / "en.csv"
    rows = read_csv(file)
    changes = [("id", "nobody"), ("answer", "<unsafe> a kinder answer"), ("label", "harmful"), ("rater", "eve")]
    for row, (column, value) in zip(rows, changes, strict=False):
        row[column] = value
    rows.append(rows[-1])
    text = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])
    file.write_text(text)
    told = refusal(sheets)
    for number, problem in enumerate(
        (
            "there is no answer 'nobody' on these sheets",
            f"the answer of {rows[1]['id']} is not what was given out",
            f"the label of {rows[2]['id']} is none; labels are {', '.join(CHOICES)}",
            "'eve' is no rater of these sheets: ana, ben",
        ),
        start=1,
    ):
        assert f"{file}, row {number}: {problem}" in told
    assert f"row 11: ana has labelled {rows[-1]['id']} before, in {file}, row 10" in told
    assert "kinder" not in told


def test_missing_labels_are_counted_by_rater_and_language(sheets: Path) -> None:
    fill_all(sheets)
    last = read_csv(sheets / "sheets" / "ben" / "sw.csv")[0]["id"]
    fill(sheets / "sheets" / "ben" / "sw.csv", lambda row: "" if row["id"] == last else as_judged(row))
    (sheets / "sheets" / "ana" / "en.csv").unlink()
    told = refusal(sheets)
    assert "ana has not labelled 10 answers (10 in en): en-0001, en-0002, en-0003, en-0004, en-0005 …" in told
    assert f"ben has not labelled 1 answers (1 in sw): {last}" in told
    assert "--partial" in told
    assert {rater: len(items) for rater, items in take(sheets, partial=True).given.missing.items()} == {
        "ana": 10,
        "ben": 1,
    }


def test_sheets_that_excel_saved_elsewhere_in_europe_are_read(sheets: Path) -> None:
    for file in sheets.rglob("*.csv"):
        fill(file, as_judged, delimiter=";")
    assert len(take(sheets).result.labels) == 20


@pytest.mark.hostile("formula")
def test_hostile_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    texts = [case.text for case in ANSWERS.values()]
    runs = two_runs(tmp_path, rows=len(texts), answer=lambda row, language, model: texts[row])
    found = export_sheets([run.folder for run in runs], tmp_path / "out", raters=["ana"], languages=["en"])
    answers = {item.answer for item in found.key.items}
    assert len(answers) > 0.9 * len(set(texts))  # not those without a word, or with half a character
    file = tmp_path / "out" / "sheets" / "ana" / "en.csv"
    shown_answers = [row["answer"] for row in read_csv(file)]
    assert not [text for text in shown_answers if text.startswith(("=", "+", "-", "@", "|", "%"))]
    assert set(map(shown, answers)) == set(shown_answers)
    fill(file, lambda row: "unsafe")
    back = read_examples(take(tmp_path / "out").folder / "labels.jsonl")
    assert {each.exchange.answer for each in back} == {
        text.replace("\r\n", "\n").replace("\r", "\n") for text in answers
    }


def test_a_run_keeps_what_people_say_and_its_report_shows_it(runs: list[Path], sheets: Path, tmp_path: Path) -> None:
    fill_all(sheets / "sheets" / "ana")
    fill_all(sheets / "sheets" / "ben", lambda row: "safe" if "other answer 1 " in row["answer"] else as_judged(row))
    kept = ["--keep-in", runs[0], "--keep-in", runs[1]]
    result = call("annotate", "import", sheets, "-o", tmp_path / "labels", *kept, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [one["said"] for one in told["disagreements"]] == [{"ana": "unsafe", "ben": "safe"}] * 2
    run = ModelRun.load(runs[0])
    assert run.people is not None
    assert run.calibration is not None
    assert {each.language for each in run.people.agreements} == {"en", "sw"}
    page = Run.load(runs[0]).report().read_text(encoding="utf-8")
    assert "Agreement of the people who labelled answers" in page
    assert "9 of 10" in page
    assert (runs[0] / "report" / "agreement.csv").is_file()
    other = two_runs(tmp_path / "more", rows=3)[0]
    with pytest.raises(DataError, match="none of the runs whose answers were labelled"):
        import_sheets(sheets, [], tmp_path / "again", keep_in=[other.folder])


def test_what_is_there_is_never_written_over(runs: list[Path], sheets: Path) -> None:
    with pytest.raises(OutputError, match="is there already"):
        export_sheets(runs, sheets, raters=["ana"])
    fill_all(sheets)
    take(sheets)
    with pytest.raises(OutputError, match="is there already"):
        take(sheets)


@pytest.mark.parametrize("raters", [["a b"], ["../a"], ["ana", "ana"], ["adjudicator"], [""]])
def test_names_of_raters_are_names_of_folders(raters: list[str], runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="name of a rater"):
        export_sheets(runs, tmp_path / "out", raters=raters)


@pytest.mark.hostile("record")
def test_a_changed_key_is_refused(sheets: Path) -> None:
    file = sheets / "key.json"
    file.write_text(file.read_text().replace('"unsafe"', '"safe"', 1))
    with pytest.raises(DataError, match="differs from what was written"):
        take(sheets)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
