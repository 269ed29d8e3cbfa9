from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from polysafe.edits.edit import JSON_FILE, TENSOR_FILE, Decision, Edit, Provenance, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation
from polysafe.errors import EditError
from tests.edits.memory import edit_of, low_ranks, operations

PROVENANCE = Provenance(
    method="layer_swap.v1",
    label="layer_swap.layer",
    options={"tau": 0.1, "layers": [1, 2], "é": None},
    decisions=(Decision(block="layers.0", layer=0, choice="blend", safety_weight=0.5, score=1e-9, detail={"n": 0.1}),),
    notes=("note",),
    warnings=("warning",),
    evidence={"curve": [0.1, 0.2]},
)
FACTORS = AddLowRank(rows=torch.tensor([0, 2]), a=torch.ones(2, 1), b=torch.ones(4, 1))


def edits() -> st.SearchStrategy[Edit]:
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    steps = st.dictionaries(names, st.lists(operations(), max_size=3).map(tuple), max_size=4)
    return st.builds(
        lambda steps, dtype, provenance: Edit(
            start="a",
            steps=steps,
            sources={name: SourceRecord(origin=name, files={"f": "00"}) for name in "abcd"},
            provenance=provenance,
            dtype=dtype,
        ),
        steps,
        st.sampled_from([None, "BF16", "F32"]),
        st.sampled_from([(), (PROVENANCE,), (PROVENANCE, PROVENANCE)]),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edit")


@given(edits())
def test_what_is_saved_is_loaded(place: Path, edit: Edit) -> None:
    for file in place.iterdir():
        file.unlink()
    path = edit.save(place)
    loaded = Edit.load(place)
    assert path == place / JSON_FILE
    assert loaded == edit
    assert loaded.sha256 == edit.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Edit.load(path).sha256 == edit.sha256
    assert edit.nbytes == sum(file.stat().st_size for file in place.iterdir())
    assert (place / TENSOR_FILE).exists() == any(isinstance(op, AddLowRank) for _, op in edit.operations())


def test_hash_depends_on_everything() -> None:
    one = edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5})})
    others = [
        edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5000000000000001})}),
        edit_of({"x": Blend(weights={"a": 0.5, "b": 0.5})}),
        edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5})}, dtype="F32"),
        edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5})}, start="b"),
        edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5}, arithmetic="authors")}),
        one.model_copy(update={"provenance": (PROVENANCE,)}),
        edit_of({"w": FACTORS}),
        edit_of({"w": FACTORS.model_copy(update={"a": torch.full((2, 1), 1.0000001)})}),
    ]
    hashes = {one.sha256, *(other.sha256 for other in others)}
    assert len(hashes) == 1 + len(others)


def test_hash_is_the_same_on_every_machine() -> None:
    """A change of the file form must raise the schema, so that old hashes keep their meaning."""
    blend = Blend(weights={"a": 0.1, "b": 0.9}, rule=Dare(base="c", drop=0.5, seed=7))
    edit = edit_of({"w": (Copy(source="b"), blend)}).model_copy(update={"provenance": (PROVENANCE,)})
    assert edit.sha256 == "b067412f4cc5316ded38ea6c573cd5a5b5ace5cd9b3df6fc4445a252164f4a73"


def test_factors_may_share_memory(tmp_path: Path) -> None:
    """The parts of one decomposition are views of one tensor, and one factor may serve several tensors."""
    whole = torch.randn(8, 2)
    rows = torch.tensor([0, 1, 2, 3])
    parts = [AddLowRank(rows=rows, a=whole[:4], b=whole[4:]), AddLowRank(rows=rows, a=whole[:4].flip(0), b=whole[4:])]
    edit = edit_of(
        {"v": parts[0], "w": (parts[0], parts[1]), "x": parts[0].model_copy(update={"a": whole.T[:, 2:6].T})}
    )
    edit.save(tmp_path)
    assert Edit.load(tmp_path) == edit


def test_saving_twice_gives_the_same_files(tmp_path: Path) -> None:
    edit = edit_of({"w": FACTORS})
    edit.save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    edit.save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    edit.save(tmp_path / "a" / "new folder")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a" / "new folder").iterdir()} == before


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    edit_of({"w": (FACTORS, Copy(source="b")), "v": Blend(weights={"a": 1, "b": -1})}).save(tmp_path)
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    content = json.loads((folder / JSON_FILE).read_text())
    (folder / JSON_FILE).write_text(json.dumps({**content, **values}))


def flip_bit(folder: Path) -> None:
    content = bytearray((folder / TENSOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / TENSOR_FILE).write_bytes(content)


def replace_factors_consistently(folder: Path, data: bytes) -> None:
    (folder / TENSOR_FILE).write_bytes(data)
    change(folder, factors_sha256=hashlib.sha256(data).hexdigest())


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit in the factors": (flip_bit, "its SHA-256 differs"),
    "factors of another edit": (lambda f: (f / TENSOR_FILE).write_bytes(b"other"), "its SHA-256 differs"),
    "factors lost": (lambda f: (f / TENSOR_FILE).unlink(), "cannot be read: No such file"),
    "factors no safetensors": (lambda f: replace_factors_consistently(f, b"no"), "is not a safetensors file"),
    "factors not announced": (lambda f: change(f, factors_sha256=None), "is no valid edit"),
    "factors hash no text": (lambda f: change(f, factors_sha256=7), "its SHA-256 differs"),
    "newer schema": (lambda f: change(f, polysafe_edit=2), "has schema 2, this polysafe reads schema 1"),
    "schema no number": (lambda f: change(f, polysafe_edit="1"), "has schema '1'"),
    "unknown source": (lambda f: change(f, steps={"w": [{"op": "copy", "source": "evil"}]}), "'evil', which is not"),
    "unknown start": (lambda f: change(f, start="evil"), "'evil', which is not among the sources"),
    "unknown operation": (lambda f: change(f, steps={"w": [{"op": "exec", "code": "1"}]}), "is no valid edit"),
    "unknown field": (lambda f: change(f, hook="os.system"), "is no valid edit"),
    "operation no object": (lambda f: change(f, steps={"w": ["copy"]}), "is no valid edit"),
    "operations no list": (lambda f: change(f, steps={"w": 1}), "is no valid edit"),
    "steps no object": (lambda f: change(f, steps=[]), "is no valid edit"),
    "steps lost": (lambda f: change(f, steps=None), "is no valid edit"),
    "type that is none": (lambda f: change(f, dtype="I8"), "the storage type 'I8' is not one of"),
    "weight not finite": (
        lambda f: change(f, steps={"w": [{"op": "blend", "weights": {"a": float("inf")}}]}),
        "is not valid JSON: Infinity is no number",
    ),
    "evidence not finite": (
        lambda f: change(f, provenance=[{"method": "m", "label": "m", "evidence": {"x": [float("nan")]}}]),
        "is no number",
    ),
    "options not finite": (
        lambda f: change(f, provenance=[{"method": "m", "label": "m", "options": {"tau": float("-inf")}}]),
        "is no number",
    ),
    "evidence nested too deep": (
        lambda f: change(f, provenance=[{"method": "m", "label": "m", "evidence": {"x": nested(200)}}]),
        "is not valid JSON: it is nested deeper than",
    ),
    "no edit at all": (lambda f: (f / JSON_FILE).write_text("{}"), "is no edit file"),
    "list": (lambda f: (f / JSON_FILE).write_text("[]"), "is no edit file"),
    "no JSON": (lambda f: (f / JSON_FILE).write_text("{"), "is not valid JSON"),
    "cut short": (lambda f: os.truncate(f / JSON_FILE, 40), "is not valid JSON"),
    "a key twice": (lambda f: (f / JSON_FILE).write_text('{"a": 1, "a": 2}'), "a key stands in it twice"),
    "nested too deep": (lambda f: (f / JSON_FILE).write_text("[" * 100_000), "is not valid JSON"),
    "half a character": (lambda f: change(f, start="\ud800"), "is not valid JSON"),
    "lost": (lambda f: (f / JSON_FILE).unlink(), "cannot be read"),
}


@pytest.mark.hostile("edit")
@pytest.mark.parametrize("case", TAMPERED)
def test_damaged_and_hostile_files_are_refused_by_name(case: str, saved: Path) -> None:
    tamper, words = TAMPERED[case]
    Edit.load(saved)
    tamper(saved)
    with pytest.raises(EditError) as caught:
        Edit.load(saved)
    assert words in caught.value.problem
    assert caught.value.where in {saved / JSON_FILE, saved / TENSOR_FILE}


def test_every_name_must_be_a_source() -> None:
    for operation in (Copy(source="x"), Blend(weights={"x": 1}), AddDelta(of="a", minus="x", scale=1)):
        with pytest.raises(EditError, match="'x', which is not among the sources"):
            edit_of({"w": operation})
    with pytest.raises(EditError, match="'x'"):
        edit_of({}, start="x")


def test_storage_type_must_be_arithmetic() -> None:
    with pytest.raises(EditError, match="'I64' is not one of BF16, F16, F32, F64"):
        edit_of({}, dtype="I64")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["options", "evidence"])
def test_what_is_told_of_an_edit_is_finite(field: str, bad: float) -> None:
    """An edit that is built in Python is refused at once, not when its hash is asked for."""
    part = Provenance(method="m.v1", label="m", **{field: {"trials": [{"gain": 1.0}, {"gain": bad}]}})
    with pytest.raises(EditError, match="is no finite number") as caught:
        Edit(start="a", steps={}, sources={"a": SourceRecord(origin="a")}, provenance=(part,))
    assert caught.value.where == f"provenance[0].{field}.trials[1].gain"


@pytest.mark.hostile("edit")
def test_numbers_of_a_decision_are_finite() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Decision(block="layers.0", choice="blend", safety_weight=0.5, score=float("nan"))


@pytest.mark.parametrize(
    ("operations", "touched", "read"),
    [
        ((), False, "a"),
        ((Copy(source="a"),), False, "a"),
        ((Copy(source="b"),), True, "b"),
        ((Copy(source="b"), Copy(source="a")), True, "b"),
        ((Copy(source="a"), Copy(source="b")), True, "ab"),
        ((Blend(weights={"b": 0.5, "c": 0.5}),), True, "bc"),
        ((Blend(weights={"b": 0.5, "a": 0.5}),), True, "ab"),
        ((Blend(weights={"b": 0.5, "a": 0.5}), Blend(weights={"b": 0.5, "a": 0.5})), True, "abb"),
        ((AddDelta(of="b", minus="c", scale=1),), True, "abc"),
        ((AddDelta(of="b", minus="a", scale=1),), True, "ab"),
        ((FACTORS,), True, "a"),
        ((Copy(source="b"), FACTORS, AddDelta(of="a", minus="c", scale=1)), True, "bc"),
    ],
)
def test_what_is_touched_and_what_is_read(operations: tuple[Operation, ...], touched: bool, read: str) -> None:
    edit = edit_of({"w": operations})
    assert edit.touched == (("w",) if touched else ())
    assert "".join(edit.reads("w")) == read
    assert edit.reads("another") == ("a",)


def test_stacking_appends() -> None:
    one = edit_of({"v": Copy(source="b"), "w": Copy(source="b")}).model_copy(update={"provenance": (PROVENANCE,)})
    two = edit_of({"w": FACTORS, "x": FACTORS}, sources="ac", dtype="F32").model_copy(
        update={"provenance": (PROVENANCE,)}
    )
    both = one.then(two)
    assert both.steps == {"v": (Copy(source="b"),), "w": (Copy(source="b"), FACTORS), "x": (FACTORS,)}
    assert both.provenance == (PROVENANCE, PROVENANCE)
    assert set(both.sources) == set("abcd")
    assert both.dtype == "F32"
    assert two.then(edit_of({})).dtype == "F32"


def test_only_edits_of_one_model_stack() -> None:
    with pytest.raises(EditError, match="starts from 'b' cannot follow one that produces a new 'a'"):
        edit_of({}).then(edit_of({}, start="b"))
    other = Edit(start="a", steps={}, sources={"a": SourceRecord(origin="elsewhere")})
    with pytest.raises(EditError, match="'a' stands for different models"):
        edit_of({}).then(other)


def test_undo_takes_the_touched_tensors_back() -> None:
    edit = edit_of({"v": Copy(source="a"), "w": Copy(source="b"), "x": FACTORS})
    undo = edit.undo()
    assert undo.start == "edited"
    assert undo.steps == {"w": (Copy(source="original"),), "x": (Copy(source="original"),)}
    assert undo.sources["original"] == edit.sources["a"]
    assert undo.provenance == (Provenance(method="undo.v1", label="undo", evidence={"edit": edit.sha256}),)


def test_a_conversion_cannot_be_undone() -> None:
    with pytest.raises(EditError, match="rounded every tensor to F16"):
        edit_of({}, dtype="F16").undo()


@given(low_ranks())
def test_an_edit_stays_itself_after_hashing(operation: AddLowRank) -> None:
    edit, same = (edit_of({"w": operation}) for _ in range(2))
    assert edit.sha256 == same.sha256
    assert edit == edit_of({"w": operation})


@pytest.mark.hostile("edit")
def test_files_that_never_end_are_not_waited_for(saved: Path) -> None:
    for name in (TENSOR_FILE, JSON_FILE):
        (saved / name).unlink()
        os.mkfifo(saved / name)
        with pytest.raises(EditError, match="cannot be read: it is a pipe or a device") as caught:
            Edit.load(saved)
        assert caught.value.where == saved / name


@pytest.mark.hostile("edit")
def test_files_of_gigabytes_are_not_read(saved: Path) -> None:
    os.truncate(saved / TENSOR_FILE, 1 << 42)
    with pytest.raises(EditError, match=r"is larger than the .* bytes of memory"):
        Edit.load(saved)
    os.truncate(saved / JSON_FILE, 30 << 30)
    with pytest.raises(EditError, match="is larger than 268435456 bytes"):
        Edit.load(saved)
