"""Benchmarks of prompts: the public files with their documented counts, and the same layouts in miniature.

Prompts here are placeholders; what is harmful in the public files is never shown by a failing test.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from polysafe.data.anchors import normalised
from polysafe.data.prompts import Prompt, PromptSet
from polysafe.data.sets import duplicate_clusters, load_set, load_table, require_disjoint, set_names
from polysafe.data.sets.base import collect
from polysafe.data.sets.multijail import tags
from polysafe.data.sets.xsafety import ISSUES
from polysafe.errors import DataError
from tests.shared import DATA, needs_data

COUNTS = {
    "multijail": (315, 10),
    "xsafety": (2800, 10),
    "polyrefuse": (572, 8),
    "polyrefuse.train": (260, 8),
    "polyrefuse.val": (39, 8),
    "polyrefuse.harmless": (500, 7),
    "polyrefuse.harmless.train": (200, 8),
    "polyrefuse.harmless.val": (200, 8),
    "advbench": (520, 1),
    "harmbench": (400, 1),
    "harmbench.standard": (200, 1),
    "harmbench.contextual": (100, 1),
    "harmbench.copyright": (100, 1),
    "harmbench.test": (320, 1),
    "harmbench.val": (80, 1),
    "strongreject": (313, 1),
    "jailbreakbench": (200, 1),
    "jailbreakbench.harmful": (100, 1),
    "xstest": (450, 1),
    "xstest.harmless": (250, 1),
    "orbench": (1319, 1),
    "orbench.train": (1055, 1),
}


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_the_public_files_have_their_documented_counts(name: str) -> None:
    found = load_set(name, data=DATA)
    rows, languages = COUNTS[name]
    counts = Counter(prompt.language for prompt in found.prompts)
    missing = 1 if name == "xsafety" else 0  # an empty line in one Russian file
    assert len(counts) == languages
    assert sum(counts.values()) == rows * languages - missing
    assert found.name == name
    assert not any(prompt.text.startswith("\ufeff") or not prompt.text.strip() for prompt in found.prompts)


@needs_data
def test_rows_are_aligned_over_languages() -> None:
    for name in ("multijail", "xsafety", "polyrefuse"):
        rows = Counter(prompt.parallel for prompt in load_set(name, data=DATA).prompts)
        assert set(rows.values()) <= {COUNTS[name][1], COUNTS[name][1] - 1}
        assert sum(count < COUNTS[name][1] for count in rows.values()) == (name == "xsafety")


@needs_data
def test_the_line_that_is_missing_in_russian_shifts_nothing() -> None:
    found = load_set("xsafety", data=DATA, languages=["ru"])
    names = [prompt.parallel for prompt in found.prompts if prompt.category == "Insult"]
    assert len(names) == 199
    assert "Insult-165" not in names
    assert names[-1] == "Insult-200"
    assert found.dropped == (("no text in ru", 1),)


@needs_data
def test_every_language_of_xsafety_has_every_issue_and_its_spellings() -> None:
    found = load_set("xsafety", data=DATA, languages=["sp", "Hindi", "bn"])
    assert set(found.languages) == {"es", "hi", "bn"}
    issues = {(prompt.language, prompt.category) for prompt in found.prompts}
    assert issues == {(code, issue) for code in ("es", "hi", "bn") for issue in ISSUES}


@needs_data
def test_duplicates_of_multijail_form_clusters() -> None:
    found = load_set("multijail", data=DATA)
    for code in ("ar", "sw"):
        clusters = duplicate_clusters(found, code)
        assert len(clusters) == 315
        assert len(set(clusters.values())) == 314
    assert len(set(duplicate_clusters(found, "en").values())) == 315
    assert all(tags(prompt) for prompt in found.prompts[:20])


@needs_data
def test_sets_that_share_prompts_are_kept_apart() -> None:
    harmful = load_set("polyrefuse", data=DATA, languages=["en"])
    with pytest.raises(DataError, match=r"of 100 prompts of 'jailbreakbench.harmful' are among those of 'polyrefuse'"):
        require_disjoint(harmful, load_set("jailbreakbench.harmful", data=DATA))
    with pytest.raises(DataError, match="translated or reworded"):
        require_disjoint(load_set("polyrefuse", data=DATA, languages=["th"]), load_set("strongreject", data=DATA))
    with pytest.raises(DataError, match="are among those of"):
        require_disjoint(load_set("advbench", data=DATA), load_set("polyrefuse.train", data=DATA))
    with pytest.raises(DataError, match="translated or reworded"):
        require_disjoint(load_set("multijail", data=DATA, languages=["sw"]), harmful.select(["en"]))
    require_disjoint(load_set("multijail", data=DATA), load_set("xsafety", data=DATA, languages=["zh"]))
    require_disjoint(load_set("polyrefuse.harmless.val", data=DATA), load_set("jailbreakbench.harmful", data=DATA))


@needs_data
def test_every_overlap_of_the_public_sets_is_declared() -> None:
    loaded = [load_set(name, data=DATA, languages=["en"]) for name in COUNTS]
    texts = [{normalised(prompt.text) for prompt in each.prompts if prompt.kind == "harmful"} for each in loaded]
    undeclared = [
        f"{one.name} and {two.name} share {len(texts[i] & texts[j])}"
        for (i, one), (j, two) in combinations(enumerate(loaded), 2)
        if family(one) != family(two) and texts[i] & texts[j] and family(two) not in one.overlaps
    ]
    assert not undeclared


@needs_data
@pytest.mark.parametrize(("name", "there"), [("multijail", "sw"), ("xsafety", "bn"), ("polyrefuse", "th")])
def test_a_set_is_not_apart_from_its_own_translation(name: str, there: str) -> None:
    english, other = (load_set(name, data=DATA, languages=[code]) for code in ("en", there))
    with pytest.raises(
        DataError, match=f"{len(other)} of {len(other)} prompts of '{name}' are among those of '{name}'"
    ):
        require_disjoint(english, other)


def family(prompts: PromptSet) -> str:
    return prompts.name.split(".")[0]


def test_rows_of_one_set_are_compared_by_name_across_languages() -> None:
    def of(name: str, code: str, *rows: str) -> PromptSet:
        prompts = [Prompt(name, row, code, f"{code} {row}", "harmless", None) for row in rows]
        return collect(name, prompts, licence="CC0-1.0", origin=name, overlaps=frozenset())

    with pytest.raises(DataError, match=r"1 of 2 prompts of 'mine.b' are among those of 'mine.a': mine.b/2/sw"):
        require_disjoint(of("mine.a", "en", "1", "2"), of("mine.b", "sw", "2", "3"))
    require_disjoint(of("mine.a", "en", "1"), of("mine.b", "sw", "2"))
    require_disjoint(of("mine", "en", "1"), of("yours", "sw", "1"))


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_multijail_in_both_layouts(tmp_path: Path) -> None:
    codes = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
    header = ",".join(("id", "source", "tags", *codes))
    lines = [f"{n},openai,\"['a', 'b']\"," + ",".join(f"{code} {n}" for code in codes) for n in (1, 2)]
    write(tmp_path / "local/multijail", "MultiJail.csv", "\ufeff" + "\r\n".join([header, *lines]))
    write(tmp_path / "hub/multijail/data", "train.csv", "\n".join([header, *lines]))
    local, hub = (load_set("multijail", data=tmp_path / kind) for kind in ("local", "hub"))
    assert local.prompts == hub.prompts
    assert local.prompts[0] == Prompt("multijail", "1", "en", "en 1", "harmful", "a; b")
    assert len(local.select(["sw", "th"], limit=1)) == 2
    write(tmp_path / "bad/multijail", "MultiJail.csv", header.replace(",sw", ",swahili_text"))
    with pytest.raises(DataError, match=r"has no column 'sw'"):
        load_set("multijail", data=tmp_path / "bad", languages=["sw"])


def test_a_limit_holds_for_each_language_where_languages_share_no_row(tmp_path: Path) -> None:
    lines = [f"{code},{code} {n}" for code, count in (("en", 5), ("bn", 3), ("sw", 1)) for n in range(count)]
    file = write(tmp_path, "long.csv", "\n".join(["language,prompt", *lines]))
    found = load_set(str(file), kind="harmless", limit=2)
    assert [prompt.text for prompt in found.prompts] == ["en 0", "en 1", "bn 0", "bn 1", "sw 0"]
    rows = [f"{n},en {n}," + (f"bn {n}" if n % 2 else "") for n in range(4)]
    wide = write(tmp_path, "wide.csv", "\n".join(["id,en,bn", *rows]))
    parallel = load_set(str(wide), kind="harmless", limit=2)
    assert [prompt.text for prompt in parallel.prompts if prompt.language == "en"] == ["en 0", "en 1"]
    assert {prompt.text for prompt in parallel.prompts if prompt.language == "bn"} <= {"bn 0", "bn 1"}


def test_xthreatbench_in_the_layouts_it_may_have(tmp_path: Path) -> None:
    rows = [{"question": f"{code} {n}", "language": name, "category": f"c{n}"}
            for code, name in (("en", "English"), ("te", "Telugu")) for n in (1, 2)]  # fmt: skip
    write(tmp_path / "one/xthreatbench", "train.jsonl", "\n".join(map(json.dumps, rows)))
    for code in ("en", "te"):
        write(tmp_path / "many/xthreatbench", f"xthreat_{code}.csv", f"question,category\n{code} 1,c1\n{code} 2,c2\n")
    one, many = (load_set("xthreatbench", data=tmp_path / kind) for kind in ("one", "many"))
    assert one.prompts == many.prompts
    assert Counter((p.language, p.category) for p in one.prompts) == {
        (c, f"c{n}"): 1 for c in ("en", "te") for n in (1, 2)
    }
    assert {p.parallel for p in one.prompts} == {"row-1", "row-2"}
    assert load_set("xthreatbench", data=tmp_path / "many", languages=["tel"]).languages == ("te",)


def test_columns_of_xthreatbench_can_be_named(tmp_path: Path) -> None:
    write(tmp_path / "xthreatbench", "train.csv", "query,tongue,topic\nx,sw,a\ny,bn,b\n")
    with pytest.raises(DataError, match=r"(?s)no column 'question'.*columns: query, tongue, topic"):
        load_set("xthreatbench", data=tmp_path)
    columns = {"text": "Query", "language": "tongue", "category": "topic"}
    found = load_set("xthreatbench", data=tmp_path, columns=columns)
    assert [(p.language, p.text, p.category) for p in found.prompts] == [("sw", "x", "a"), ("bn", "y", "b")]
    with pytest.raises(DataError, match=r"(?s)no column 'theme'.*columns: query, tongue, topic"):
        load_set("xthreatbench", data=tmp_path, columns={**columns, "category": "theme"})
    with pytest.raises(DataError, match="nothing that a column can be"):
        load_set("xthreatbench", data=tmp_path, columns={"prompt": "query"})
    with pytest.raises(DataError, match="does not say its language"):
        load_set("xthreatbench", data=tmp_path, columns={"text": "query"})


def test_tables_of_your_own(tmp_path: Path) -> None:
    wide = write(tmp_path, "mine.tsv", "id\ten\tsw\tnote\n7\tone\tmoja\t-\n8\ttwo\t\t-\n")
    found = load_table(wide, "mine", kind="harmless")
    assert [(p.id, p.text, p.kind) for p in found.prompts] == [
        ("mine/7/en", "one", "harmless"),
        ("mine/8/en", "two", "harmless"),
        ("mine/7/sw", "moja", "harmless"),
    ]
    assert found.dropped == (("no text in sw", 1),)
    plain = write(tmp_path, "plain.csv", "prompt\na\nb\n")
    assert load_table(plain, "plain", spoken="yo").languages == ("yo",)
    with pytest.raises(DataError, match="does not say its language"):
        load_table(plain, "plain")
    with pytest.raises(DataError, match="has 2 tables, none of which is named after a language"):
        load_table(tmp_path, "both")


def test_uneven_languages_are_not_taken_for_parallel(tmp_path: Path) -> None:
    file = write(tmp_path, "t.csv", "text,language\na,en\nb,en\na,sw\n")
    found = load_table(file, "t")
    assert not any(prompt.parallel.startswith("row-") for prompt in found.prompts)


def test_names_and_parts() -> None:
    assert len(set_names()) == 10
    with pytest.raises(DataError, match=r"(?s)no set 'multijial'.*did you mean 'multijail'"):
        load_set("multijial")
    with pytest.raises(DataError, match=r"(?s)no part 'teste'.*did you mean 'test'"):
        load_set("polyrefuse.teste")
    with pytest.raises(DataError, match="'val' contradicts"):
        load_set("polyrefuse.test.val")


def test_a_set_needs_a_folder_or_a_commit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder 'multijail'"):
        load_set("multijail", data=tmp_path)
    with pytest.raises(DataError, match="needs a commit"):
        load_set("multijail")
    with pytest.raises(DataError, match="is no commit"):
        load_set("multijail", revision="main")
    with pytest.raises(DataError, match="no known copy on the hub"):
        load_set("xsafety")


def test_the_hub_is_asked_at_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, **options: object) -> str:
        asked.append((repository, options["revision"], options["repo_type"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    write(
        tmp_path,
        "README.md",
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: x.csv}\n---\n",
    )
    write(tmp_path, "x.csv", "goal,target\na,b\n")
    found = load_set("advbench", revision="0" * 40)
    assert asked == [("walledai/AdvBench", "0" * 40, "dataset")]
    assert [prompt.text for prompt in found.prompts] == ["a"]
    assert found.origin == f"walledai/AdvBench@{'0' * 40}"


def test_a_prompt_has_one_name() -> None:
    prompt = Prompt("s", "1", "en", "x", "harmful")
    with pytest.raises(DataError, match="is there twice"):
        PromptSet("s", (prompt, prompt))
    with pytest.raises(DataError, match=r"(?s)no prompts in 'sw'.*languages: en"):
        PromptSet("s", (prompt,)).select(["sw"])


@needs_data
def test_parts_of_multijail_are_apart_and_make_up_the_set() -> None:
    whole = load_set("multijail", data=DATA)
    parts = {name: load_set(f"multijail.{name}", data=DATA) for name in ("anchors", "validation", "test")}
    rows = {name: {prompt.parallel for prompt in part.prompts} for name, part in parts.items()}
    assert {name: len(ids) for name, ids in rows.items()} == {"anchors": 115, "validation": 50, "test": 150}
    assert set.union(*rows.values()) == {prompt.parallel for prompt in whole.prompts}
    assert {len(part.languages) for part in parts.values()} == {10}
    for one, other in combinations(parts.values(), 2):
        require_disjoint(one, other)
    with pytest.raises(DataError, match="are among those of 'multijail'"):
        require_disjoint(whole, parts["test"])
    ordered = sorted(map(str, range(315)), key=lambda row: hashlib.sha256(f"multijail/{row}".encode()).hexdigest())
    assert rows["validation"] == set(ordered[115:165])
    require_disjoint(load_set("polyrefuse.train", data=DATA), parts["validation"])
    require_disjoint(parts["validation"], load_set("polyrefuse.train", data=DATA))


def test_a_table_of_ones_own_is_a_set(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.csv", "prompt\none\ntwo\n")
    found = load_set(str(file), kind="harmless", languages=["swahili"])
    assert [(p.id, p.text, p.kind) for p in found.prompts] == [
        ("mine/row-1/sw", "one", "harmless"),
        ("mine/row-2/sw", "two", "harmless"),
    ]
    with pytest.raises(DataError, match="does not say its language"):
        load_set(file)
    named = write(tmp_path, "mine_bn.jsonl", '{"text": "one"}\n')
    assert load_set(named).languages == ("bn",)
    with pytest.raises(DataError, match="does not say its language"):
        load_set(write(tmp_path, "my_prompts.csv", "prompt\none\n"))  # not Burmese
    wide = write(tmp_path, "wide.csv", "en,sw\na,b\nc,d\n")
    assert len(load_set(wide, limit=1)) == 2
    with pytest.raises(DataError, match="cannot be read"):
        load_set("none.csv")


def test_tables_are_one_family_if_they_are_one_file(tmp_path: Path) -> None:
    one, other = (write(tmp_path, f"{name}/mine.csv", f"en,sw\n{name} x,{name} y\n") for name in ("a", "b"))
    require_disjoint(load_set(one), load_set(other))
    with pytest.raises(DataError, match="mine/row-1/sw"):
        require_disjoint(load_set(one, languages=["en"]), load_set(one, languages=["sw"]))
