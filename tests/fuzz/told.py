"""Parsers of what is told of models and results: licences, origins, measurements, reports, ways to make them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz.models import Made, in_file
from tests.fuzz.target import Target, folder

_HASH = "0" * 64


def _licence() -> Made:
    """The front matter of a model card, which is YAML of somebody else."""
    from polysafe.checkpoint.licence import licence_of

    root = folder("licence")
    said = ("license: mit", "license: other\nlicense_name: mine", "license: [apache-2.0]\ntags:\n- a", "- license")
    seeds = [f"---\n{each}\n---\n# A model\n".encode() for each in said]
    return in_file(root / "README.md", lambda _: licence_of(root)), seeds


def _imported() -> Made:
    from polysafe.checkpoint.imported import FILE, Imported, imported_bytes, read_imported

    root = folder("imported")
    (root / FILE).parent.mkdir()
    record = Imported(
        "gguf", "m.gguf", _HASH, 3, "llama", {"Q4_K": 2}, dtype="BF16", terms=("LICENSE.txt",), notes=("a",)
    )

    def read(_: Path) -> object:
        return [(each.sentence, each.quantised) for each in read_imported(root)]

    return in_file(root / FILE, read), [imported_bytes([record])]


def _numbers() -> Made:
    from polysafe.evaluate.numbers import Numbers, file_of, load_numbers
    from polysafe.stats.means import mean_rows

    root = folder("numbers")
    Numbers("refusal_odds", {("sw", "refusal_odds"): {"a": 0.5, "b": -1.0}}, {"p": 1}, {"m": "0"}, ("n",)).save(root)
    path = root / file_of("refusal_odds")
    return in_file(path, lambda _: [mean_rows("m", each.values) for each in load_numbers(root)]), [path.read_bytes()]


def _report() -> Made:
    from polysafe.findings.data import ReportData
    from tests.report.examples import measured

    seed = measured({"unsafe": 0.1}, n=12).to_json()
    return (lambda data: ReportData.from_json(data).to_json()), [seed]


def _choosing() -> Made:
    from polysafe.findings.choosing import FILE, Choosing, Gain, Tried, load_choosing, save_choosing

    root = folder("choosing")
    tried = Tried("layer_swap", 3, (Gain("sw", 40, True, 0.2, 0.6, 0.1, 0.5),), {"over_refusal": 0.01}, "taken", True)
    save_choosing(root, [Choosing("m", "it is the best", (tried,))])
    return in_file(root / FILE, lambda _: [each.taken for each in load_choosing(root)]), [(root / FILE).read_bytes()]


def _reproduction() -> Made:
    """The record of a result; the environment beside it is sound."""
    from polysafe.reproduce import record
    from polysafe.reproduce.record import ReproduceFolder

    root = folder("reproduction")
    empty: dict[str, Any] = {"python": {}, "platform": {}, "accelerators": [], "threads": {}, "torch": {}}
    about = record.ENVIRONMENT_FORMAT.head | empty | {"program": {}, "libraries": {}}
    (root / record.ENVIRONMENT).write_text(json.dumps(about))
    (root / "records").mkdir()
    (root / "records" / "a.jsonl").write_text(json.dumps({"id": "s/1/sw", "verdict": "safe", "answer": _HASH}) + "\n")
    step = {"name": "a", "recipe": "recipes/a.yaml", "edit": "edits/a", "edit_sha256": _HASH, "output": {"a": _HASH}}
    content = record.FORMAT.head | {
        "version": "0",
        "kind": "evaluate",
        "settings": {"limit": 3},
        "judge": {"name": "j", "identity": {}},
        "inputs": {"base": {"kind": "model", "hub": "a/b", "revision": "0" * 40, "files": {"config.json": _HASH}}},
        "steps": [step],
        "sets": [{"name": "s", "sha256": _HASH}],
        "runs": [{"name": "m", "file": "records/a.jsonl", "records": _HASH, "generator": {"weights": _HASH}}],
    }

    def read(_: Path) -> object:
        found = ReproduceFolder.load(root)
        for name in (*(step.recipe for step in found.about.steps), *(run.file for run in found.about.runs)):
            assert (root / name).resolve().is_relative_to(root.resolve())
        return [found.verdicts(run) for run in found.about.runs]

    return in_file(root / record.RECORD, read), [json.dumps(content).encode()]


TOLD = (
    Target("licence", _licence, "bytes", (b"---\n", b"license: ", b"&a", b"*a", b"- ", b"!!python/object:x"), 600),
    Target("imported", _imported, "json", (b'"terms"', b"LICENSE", b'"types"'), 500),
    Target("numbers", _numbers, "json", (b'"values"', b"Infinity"), 300),
    Target("report", _report, "json", (b'"rows"', b'"meta"', b"\\ud800"), 30),
    Target("choosing", _choosing, "json", (b'"tried"', b'"gains"'), 400),
    Target("reproduction", _reproduction, "json", (b"records/", b"../", b'"inputs"', b"edits/.."), 200),
)
