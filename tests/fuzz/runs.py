"""Parsers of what runs, searches and recipes are kept in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.models import Made, in_file
from tests.fuzz.target import Target, folder

_SPACE = """\
polysafe: 1
sources:
  base: {path: base}
  safety: {path: safety}
  sw: {path: sw}
edits:
  - method: layer_swap
    base: base
    safety: safety
    language: sw
    %s
output: {path: out}
search: {trials: 5}
"""
_RECIPE = """\
polysafe: 1
sources: &sources
  base: {path: base}
  safety: {hub: a/b, revision: 0123456789abcdef0123456789abcdef01234567}
  sw: {path: sw}
edits:
  - {method: layer_swap, base: base, safety: safety, language: sw}
evaluate:
  languages: [en, sw]
  safety: [multijail]
  judge: {kind: openai, base_url: https://localhost/v1, model: m}
output: {path: out, shard_size: 2GB}
"""
_CHOICE = """\
polysafe: 1
sources: {aligned: {path: ./aligned}}
edits:
  - method: sparse_edit
    model: aligned
    languages: [th, it]
    anchors: {set: polyrefuse.train, limit: 150}
    layers: [auto]
    target_gain: [1.0, 2.0]
output: {path: ./out/aligned-edited}
data: ./data
validation:
  safety: [multijail.validation]
  over_refusal: [polyrefuse.harmless.val]
  constraints: {over_refusal: +0.02, helpful: -0.02}
"""


def _recipe() -> Made:
    from polysafe.recipe.recipe import load_recipe

    seeds = [_RECIPE.encode(), _CHOICE.encode()]
    return in_file(folder("recipe") / "recipe.yaml", load_recipe), seeds


def _space() -> Made:
    from polysafe.search.space import load_space

    def read(path: Path) -> object:
        space = load_space(path)
        return space.defaults(), space.size, [each.domain.ends for each in space.parameters]

    fields = ("granularity: [layer, module]", "tau: {low: 0.1, high: 0.9}", "safety_weight: {choices: [0.5, 1]}")
    return in_file(folder("space") / "recipe.yaml", read), [(_SPACE % each).encode() for each in fields]


def _study() -> Made:
    from polysafe.search.choice import front, recommend
    from polysafe.search.study import JOURNAL, Study
    from tests.search.made import outcome, steering

    space = steering(
        {"strength": {"low": 0.0, "high": 2.0}, "fraction": [0.25, 0.5]}, {"trials": 3, "sampler": "random"}
    )
    place = folder("study")

    def outcome_of(setting: Any) -> Any:
        return outcome(10 + int(10 * setting["strength"]), setting["strength"], over=0.01)

    study = Study(place, space, "a")
    study.begin()
    study.run(outcome_of, 3)
    seed = (place / JOURNAL).read_bytes()

    def read(_: Path) -> object:
        again = Study(place, space, "a")
        points = again.points()
        again.begin()
        again.run(outcome_of, 3)
        objectives = space.search.objectives
        return front(points, objectives), recommend(points, objectives, 3), [point.to_json() for point in points]

    return in_file(place / JOURNAL, read), [seed]


def _run_of(place: Path) -> Path:
    from polysafe.evaluate.ability import Ability
    from tests.findings.test_runs import run

    root = place / "run"
    run(root, 3, rows=3)
    Ability("mgsm", {"en": {"1": True}, "sw": {"1": False}}, {"a": 1}, {"weights": "0"}, ("note",)).save(root)
    return root


def _read_run(root: Path) -> object:
    from polysafe.evaluate.model_run import ModelRun
    from polysafe.findings.settings import is_toy

    run = ModelRun.load(root)
    told = [run.name, run.judge, run.judged, run.sampling, run.languages, run.imported, run.attack, run.categories]
    return told, run.rates(), run.truncation(), run.unread, run.repeated, run.corrected, is_toy([run])


def _run() -> Made:
    from polysafe.evaluate.audited import read_audit
    from polysafe.evaluate.model_run import ModelRun
    from polysafe.findings.runs import audit_report

    root = _run_of(folder("run"))

    def read(_: Path) -> object:
        return _read_run(root), audit_report(read_audit(ModelRun.load(root), "en"), pivot="en")

    return in_file(root / "run.json", read), [(root / "run.json").read_bytes()]


def _records() -> Made:
    from polysafe.evaluate import metrics
    from polysafe.evaluate.records import load_records
    from polysafe.evaluate.unread import Unread

    def read(path: Path) -> object:
        records = load_records(path)
        outcomes = metrics.outcomes(records)
        told = metrics.truncation("m", records), metrics.clusters(records), metrics.outcomes_by_category(records)
        return told, Unread.of("j", records, outcomes), metrics.outcomes(records, refusals=True)

    root = _run_of(folder("records"))
    lines = (root / "records.jsonl").read_bytes().splitlines(keepends=True)
    return in_file(root.parent / "records.jsonl", read), [b"".join(lines[:4]), b"".join(lines[-4:])]


def _ability() -> Made:
    from polysafe.evaluate.ability import Ability

    root = _run_of(folder("ability"))
    path = root / "abilities" / "mgsm.json"
    return in_file(path, lambda file: Ability.load(file).outcomes), [path.read_bytes()]


def _kept() -> Made:
    """Answers and verdicts of a cache."""
    from polysafe.evaluate.records import completion_from_json, completion_to_json, verdict_from_json, verdict_to_json
    from polysafe.files.json_file import parse_line
    from tests.evaluate.test_records import record

    def parse(data: bytes) -> object:
        try:
            value = parse_line(data)
        except ValueError:
            return None
        read = verdict_from_json if isinstance(value, dict) and "label" in value else completion_from_json
        return read("name", value)

    made = record(detail={"shown": {"cut": 1}})
    content = completion_to_json(made.completion), verdict_to_json(made.verdict)
    return parse, [json.dumps(each).encode() for each in content]


def _journal() -> Made:
    from polysafe.evaluate.journal import Journal
    from polysafe.evaluate.keys import Key

    def read(path: Path) -> object:
        with Journal(path) as journal:
            journal.put(Key("completion", "m", "new"), {"a": 1})
            return len(journal), journal.get(Key("completion", "m", "1"))

    seed = b'["completion", "m", "1", {"text": "x"}]\n["verdict", "j", "1", {"label": "safe"}]\n'
    return in_file(folder("journal") / "journal.jsonl", read), [seed]


def _calibration() -> Made:
    from polysafe.judge.calibrate import Calibration, Counts

    path = folder("calibration") / "calibration.json"
    Calibration("j", {"judge": "j"}, {"en": Counts(3, 1, 4, 1)}, "0" * 64).save(path)
    return in_file(path, lambda file: Calibration.load(file).as_json()), [path.read_bytes()]


def _rows() -> Made:
    from polysafe.evaluate.compare import compare_runs
    from polysafe.stats.rows import load_rows

    place = folder("rows")
    run = _run_of(place)
    shutil.copytree(run, place / "after")
    path = compare_runs(run, place / "after", "edit").save(place / "results")
    return in_file(path, load_rows), [path.read_bytes()]


def _probe() -> Made:
    import torch

    from polysafe.probe.capture import load_captured
    from polysafe.probe.effects import EffectsRecord, _kept
    from polysafe.probe.files import ProbeRecord, read_probe, write_probe

    place = folder("probe")
    about: dict[str, Any] = {"model": "0", "tokenizer": "0", "data": "0", "dtype": "float32", "prompts": 2, "tokens": 4}
    about |= {"site": "mlp", "layers": (0,), "modules": ("m",), "pooling": "last"}
    wide = torch.ones(3, dtype=torch.float64)
    sums = {"store.0.count": torch.tensor(2), "store.0.mean": wide, "store.0.deviation": wide.clone()}
    kept: dict[str, dict[str, torch.Tensor]] = {"rows": {"store.0": torch.ones(2, 3)}, "statistics": sums}
    seeds = []
    for kind, tensors in kept.items():
        record = ProbeRecord(kind=kind, **about)
        write_probe(place / kind, record, ("a", "b"), {**tensors, "done": torch.ones(2, dtype=torch.bool)})
        seeds.append((place / kind).read_bytes())
    effects = EffectsRecord(
        model="0", tokenizer="0", data={"t": "0"}, language="en", score="first", layers=1, heads=2, dtype="float32"
    )
    wanted = {"effects.t": torch.ones(1, 1, 2), "before.t": torch.ones(1)}
    notes = torch.tensor(list(b"a\0b"), dtype=torch.uint8)
    write_probe(place / "effects", effects, ("t/a",), {**wanted, "notes": notes})
    seeds.append((place / "effects").read_bytes())

    def read(path: Path) -> object:
        if b"effects" in path.read_bytes():
            return _kept(path, read_probe(path, EffectsRecord)[2], wanted)
        return load_captured(path)

    return in_file(place / "probe.safetensors", read), seeds


def _card() -> Made:
    from polysafe.card.data import Card

    root = folder("card")
    from tests.card.cards import card

    seeds: Sequence[bytes] = [card().to_json()]
    return (lambda data: Card.from_json(data, root / "card.json")), seeds


def _table(ending: str, seeds: Sequence[bytes]) -> Made:
    from polysafe.data.sets.table import load_table

    path = folder("table") / f"table.en{ending}"
    return in_file(path, lambda file: load_table(file, "harmful")), seeds


RUNS = (
    Target("recipe", _recipe, "yaml", (b"&a", b"*a", b"<<: *a", b"!!python/object:x", b"? ", b"- ", b"'", b"|\n"), 50),
    Target("space", _space, "yaml", (b"low", b"high", b"step", b"choices", b"log", b"among", b"*a", b"&a"), 25),
    Target("study", _study, "lines", (b'"op_code"', b'"trial_id"', b'"outcome"', b'"value"', b"NaN"), 100),
    Target("run", _run, "json", (b'"imported"', b'"attack"', b'"labels"', b'"identity"'), 100),
    Target("records", _records, "lines", (b'"label"', b'"detail"', b'"refused"', b"\\ud800"), 1000),
    Target("ability", _ability, "json", (), 1000),
    Target("kept", _kept, "json", (b'"label"', b'"text"', b'"detail"'), 3000),
    Target("journal", _journal, "lines", (b'["completion", "m", "1", null]\n',), 1500),
    Target("calibration", _calibration, "json", (b'"counts"',), 1000),
    Target("rows", _rows, "json", (b'"rate"', b'"low"'), 500),
    Target("probe", _probe, "probe", (b"polysafe_probe", b'\\"kind\\"', b'\\"ids\\"'), 800),
    Target("card", _card, "json", (b'"rows"', b'"sources"', b"\\ud800"), 150),
    Target("table_jsonl", lambda: _table(".jsonl", [b'{"prompt": "a", "language": "en", "category": "x"}\n']), "lines"),
    Target("table_csv", lambda: _table(".csv", [b'id,prompt,language\n1,"a, b",en\n2,c,sw\n']), "bytes"),
)
