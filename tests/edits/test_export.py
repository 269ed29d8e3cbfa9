"""An exported adapter, loaded by PEFT, gives the logits of the model that the edit makes."""

from __future__ import annotations

import errno
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from polysafe.checkpoint.lora import open_adapter
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.checkpoint.verify import verify_output
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.export import Export, export_adapter
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation
from polysafe.errors import EditError, MismatchError, OutputError
from polysafe.workflows.apply import apply_edit, export_edit
from tests.models import TinyModel, tiny_model, write_adapter

# PEFT's own use of a name that transformers renames
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

OUTPUT = {
    "llama": "model.layers.{}.self_attn.o_proj.weight",
    "qwen2": "model.layers.{}.self_attn.o_proj.weight",
    "phi3": "model.layers.{}.self_attn.qkv_proj.weight",
    "gemma2": "model.layers.{}.mlp.down_proj.weight",
    "gpt2": "transformer.h.{}.attn.c_attn.weight",
    "gpt_neox": "gpt_neox.layers.{}.attention.query_key_value.weight",
}
HEADS = ((0, 4), (8, 12))
Steps = Mapping[str, Operation | tuple[Operation, ...]]


class Place:
    """A folder of float32 models that share an architecture, and the adapters exported from edits of them."""

    def __init__(self, folder: Path, family: str = "llama") -> None:
        self.folder = folder
        self.model = tiny_model(family, layers=3, dtype=torch.float32)
        self.folders = {"model": self.model.save(folder / "model")}

    def descendant(self, name: str, *, only: str = "") -> None:
        moved = self.model.updated(sum(name.encode()), lambda tensor: 0.3 if only in tensor else 0.0)
        self.folders[name] = moved.save(self.folder / name)

    def adapter(self, name: str, **settings: Any) -> None:
        folder = write_adapter(self.folder / name, self.model, seed=len(name))
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        self.folders[name] = folder

    def edit(self, steps: Steps, **settings: Any) -> Edit:
        return Edit(
            start="model",
            steps={name: ops if isinstance(ops, tuple) else (ops,) for name, ops in steps.items()},
            sources={name: SourceRecord(origin=str(folder)) for name, folder in self.folders.items()},
            **settings,
        )

    def checkpoints(self) -> dict[str, Checkpoint]:
        base = open_checkpoint(self.folders["model"])
        return {
            name: open_adapter(folder, base) if (folder / "adapter_config.json").exists() else open_checkpoint(folder)
            for name, folder in self.folders.items()
        }

    def export(self, edit: Edit, **options: Any) -> Export:
        return export_adapter(edit, self.checkpoints(), self.folder / "adapter", **options)

    def logits(self, folder: Path, adapter: Path | None = None) -> torch.Tensor:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
        tokens = torch.arange(3, 27).view(2, 12)
        with torch.no_grad():
            logits: torch.Tensor = model.eval()(tokens).logits
        return logits

    def same_logits(self, edit: Edit, **options: Any) -> Export:
        """Exports, and compares with the checkpoint that the edit makes; the edit must matter."""
        export = self.export(edit, **options)
        edited = self.logits(apply_edit(edit, self.folders, self.folder / "edited").output)
        adapted = self.logits(self.folders["model"], export.output)
        assert (edited - self.logits(self.folders["model"])).abs().max() > 1e-2
        torch.testing.assert_close(adapted, edited, rtol=0, atol=1e-5)
        assert verify_output(export.output).ok
        return export


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def o_proj(layer: int) -> str:
    return OUTPUT["llama"].format(layer)


def low_rank(model: TinyModel, tensor: str, rank: int, seed: int = 0) -> AddLowRank:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = model.tensors[tensor].shape
    chosen = torch.arange(1, rows, 3)
    a = 0.4 * torch.randn(len(chosen), rank, generator=generator)
    return AddLowRank(rows=chosen, a=a, b=0.4 * torch.randn(columns, rank, generator=generator))


def factors(export: Export, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = load_file(export.output / "adapter_model.safetensors")
    return tuple(tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")  # type: ignore[return-value]


def config(export: Export) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((export.output / "adapter_config.json").read_text())
    return content


@pytest.mark.parametrize("family", OUTPUT)
def test_added_factors_are_exact_in_every_family(tmp_path: Path, family: str) -> None:
    place = Place(tmp_path, family)
    steps = {name: low_rank(place.model, name, rank=r) for r in (1, 2) if (name := OUTPUT[family].format(r))}
    export = place.same_logits(place.edit(steps))
    assert [(m.how, m.rank, m.needed) for m in export.modules] == [("exact", 1, 1), ("exact", 2, 2)]
    assert export.relative_error < 1e-7


@pytest.mark.parametrize("family", OUTPUT)
def test_a_swapped_matrix_is_found_at_full_rank_in_every_family(tmp_path: Path, family: str) -> None:
    place = Place(tmp_path, family)
    place.descendant("other")
    export = place.same_logits(place.edit({OUTPUT[family].format(1): Copy(source="other")}))
    (module,) = export.modules
    assert (module.how, module.rank) == ("svd", module.needed)
    assert module.relative_error < 2e-6


def test_rows_that_are_not_edited_are_zero_and_steps_add_their_ranks(place: Place) -> None:
    step = low_rank(place.model, o_proj(1), rank=2)
    export = place.same_logits(place.edit({o_proj(1): (step, low_rank(place.model, o_proj(1), rank=3, seed=1))}))
    a, b = factors(export, export.modules[0].module)
    assert a.shape == (5, 16)
    assert set((b != 0).any(1).nonzero().flatten().tolist()) == set(step.rows.tolist())


def test_ranks_differ_by_module_and_programs_without_patterns_scale_alike(place: Place) -> None:
    ranks = {o_proj(0): 1, o_proj(1): 4, "model.layers.1.mlp.up_proj.weight": 2}
    export = place.same_logits(place.edit({n: low_rank(place.model, n, rank) for n, rank in ranks.items()}))
    found = config(export)
    assert found["r"] == found["lora_alpha"] == 4
    assert found["rank_pattern"] == found["alpha_pattern"]
    assert sorted(found["rank_pattern"].values()) == [1, 2]
    assert sorted(found["target_modules"]) == sorted(name.removesuffix(".weight") for name in ranks)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"layers.1.self_attn.o_proj": 9}}])
def test_masked_difference_of_an_adapter_is_an_adapter(place: Place, settings: dict[str, Any]) -> None:
    place.adapter("harm", **settings)
    delta = AddDelta(of="harm", minus="model", scale=-0.75, columns=HEADS)
    export = place.same_logits(place.edit({o_proj(1): delta, o_proj(2): delta.model_copy(update={"columns": ()})}))
    (module,) = export.modules
    assert (module.module, module.how, module.rank) == ("model.layers.1.self_attn.o_proj", "exact", 3)
    assert export.unchanged == (o_proj(2),)
    given = load_file(place.folders["harm"] / "adapter_model.safetensors")
    original = {side: given[f"base_model.model.{module.module}.lora_{side}.weight"] for side in "AB"}
    a, b = factors(export, module.module)
    masked = torch.zeros_like(original["A"])
    for start, stop in HEADS:
        masked[:, start:stop] = original["A"][:, start:stop]
    assert torch.equal(a, masked)
    alpha = 9.0 if "alpha_pattern" in settings else 6.0
    scaling = alpha / (math.sqrt(3) if "use_rslora" in settings else 3)
    torch.testing.assert_close(b, -0.75 * scaling * original["B"])
    assert o_proj(0) in export.dropped["harm"]
    assert o_proj(1) not in export.dropped["harm"]
    assert len(export.dropped["harm"]) == 3 * 7 - 2


def test_minus_one_on_all_columns_gives_the_adapter_back(place: Place) -> None:
    place.adapter("harm")
    steps = {o_proj(i): AddDelta(of="harm", minus="model", scale=1.0) for i in range(3)}
    assert all(module.how == "exact" for module in place.same_logits(place.edit(steps)).modules)


@pytest.mark.parametrize(
    "operations",
    [
        (AddDelta(of="harm", minus="model", scale=-0.5, columns=HEADS),),
        (AddDelta(of="model", minus="harm", scale=0.5, columns=HEADS),),
        (AddDelta(of="harm", minus="second", scale=-0.5),),
        (AddDelta(of="model", minus="model", scale=2.0),),
        (Copy(source="harm"), Blend(weights={"model": 0.25, "second": 0.75})),
        (Copy(source="dense"), Copy(source="second")),
    ],
)
def test_steps_after_steps_are_exact_where_all_models_are_adapters(
    place: Place, operations: tuple[Operation, ...]
) -> None:
    place.adapter("harm")
    place.adapter("second")
    place.descendant("dense")
    step = low_rank(place.model, o_proj(1), rank=2)
    export = place.same_logits(place.edit({o_proj(1): (step, *operations), o_proj(2): step}))
    assert all(module.how == "exact" for module in export.modules)


def test_differences_of_full_models_are_truncated_and_the_error_is_stated(place: Place) -> None:
    place.descendant("harm")
    edit = place.edit({o_proj(1): AddDelta(of="harm", minus="model", scale=-1.0, columns=HEADS)})
    export = place.export(edit, rank=3)
    (module,) = export.modules
    harm = load_file(place.folders["harm"] / "model.safetensors")[o_proj(1)]
    delta = torch.zeros(16, 16)
    for start, stop in HEADS:
        delta[:, start:stop] = (place.model.tensors[o_proj(1)] - harm)[:, start:stop]
    values = torch.linalg.svdvals(delta.double())
    assert (module.how, module.rank, module.needed) == ("svd", 3, 8)
    assert module.relative_error == pytest.approx((values[3:].norm() / values.norm()).item(), rel=1e-5)
    assert export.relative_error == pytest.approx(module.relative_error)
    a, b = factors(export, module.module)
    assert not a[:, 4:8].any()
    assert not a[:, 12:].any()
    assert torch.linalg.matrix_norm(delta - b @ a).item() == pytest.approx(values[3:].norm().item(), rel=1e-5)


def test_a_blend_is_exact_when_the_rank_suffices(place: Place) -> None:
    place.descendant("other")
    export = place.same_logits(place.edit({o_proj(1): Blend(weights={"model": 0.5, "other": 0.5})}), rank=16)
    assert export.modules[0].rank == 16
    assert export.relative_error < 2e-6


def test_an_exact_update_is_truncated_only_on_request(place: Place) -> None:
    place.adapter("harm")
    edit = place.edit({o_proj(1): AddDelta(of="harm", minus="model", scale=1.0)})
    (module,) = place.export(edit, rank=2).modules
    assert (module.how, module.rank, module.needed) == ("svd", 2, 3)
    assert 0 < module.relative_error < 1


def test_factors_may_be_stored_in_sixteen_bits(place: Place) -> None:
    edit = place.edit({o_proj(1): low_rank(place.model, o_proj(1), rank=2)})
    export = place.export(edit, dtype="BF16")
    assert {tensor.dtype for tensor in factors(export, export.modules[0].module)} == {torch.bfloat16}
    assert 1e-4 < export.relative_error < 1e-2
    assert export.modules[0].how == "exact"


def test_the_adapters_folder_says_what_was_done_but_not_where(place: Place) -> None:
    edit = place.edit({o_proj(1): low_rank(place.model, o_proj(1), rank=2)})
    export = place.export(edit)
    written = json.loads((export.output / "polysafe" / "export.json").read_text())
    assert written == json.loads(json.dumps(export.record()))
    assert (written["polysafe_export"], written["edit"], written["dropped"]) == (1, edit.sha256, {})
    assert str(place.folder) not in json.dumps(written)


def test_what_an_adapter_cannot_express_is_refused_or_left_out(place: Place) -> None:
    place.descendant("other")
    same = "model.layers.0.input_layernorm.weight"
    place.folders["other"] = TinyModel(
        {**load_file(place.folders["other"] / "model.safetensors"), same: place.model.tensors[same]},
        place.model.config,
    ).save(place.folder / "other2")
    named = ("model.norm.weight", "model.embed_tokens.weight", "lm_head.weight", same, o_proj(0))
    edit = place.edit(dict.fromkeys(named, Copy(source="other")))
    with pytest.raises(EditError, match=r"3 tensors .*model\.norm\.weight \(final norm\).*lm_head\.weight \(head\)"):
        place.export(edit)
    assert not (place.folder / "adapter").exists()
    export = place.export(edit, partial=True)
    assert {part.tensor for part in export.left_out} == set(named[:3])
    assert export.unchanged == (same,)
    assert [module.tensor for module in export.modules] == [o_proj(0)]
    assert 0 < export.left_out_share < 1


def test_biases_are_no_matter_for_an_adapter(tmp_path: Path) -> None:
    place = Place(tmp_path, "qwen2")
    place.descendant("other")
    with pytest.raises(EditError, match="bias"):
        place.export(place.edit({"model.layers.0.self_attn.q_proj.bias": Copy(source="other")}))


def test_experts_are_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, "mixtral")
    place.descendant("other")
    name = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    with pytest.raises(EditError, match="experts, which run as one tensor"):
        place.export(place.edit({name: Copy(source="other")}))


def test_nothing_to_export(place: Place) -> None:
    with pytest.raises(EditError, match="changes no linear layer"):
        place.export(place.edit({o_proj(0): AddDelta(of="model", minus="model", scale=1.0)}))
    place.descendant("other")
    with pytest.raises(EditError, match=r"no linear layer but model\.norm\.weight \(final norm\), so"):
        place.export(place.edit({"model.norm.weight": Copy(source="other")}), partial=True)


@pytest.mark.parametrize(
    ("options", "words"), [({"rank": 0}, "a rank of 0"), ({"dtype": "F64"}, "'F64' is no type for factors")]
)
def test_options_without_a_meaning(place: Place, options: dict[str, Any], words: str) -> None:
    with pytest.raises(EditError, match=words):
        place.export(place.edit({o_proj(0): low_rank(place.model, o_proj(0), rank=1)}), **options)


def test_factors_that_do_not_fit_their_type(place: Place) -> None:
    step = AddLowRank(rows=torch.tensor([0]), a=torch.tensor([[1e6]]), b=torch.ones(16, 1))
    with pytest.raises(EditError, match="does not fit F16"):
        place.export(place.edit({o_proj(0): step}), dtype="F16")
    assert sorted(path.name for path in place.folder.iterdir()) == ["model"]


def test_sources_of_another_shape(place: Place) -> None:
    wide = {n: torch.cat([t, t]) if n == o_proj(0) else t for n, t in place.model.tensors.items()}
    place.folders["other"] = TinyModel(wide, place.model.config).save(place.folder / "other")
    with pytest.raises(MismatchError, match="has shape"):
        place.export(place.edit({o_proj(0): Copy(source="other")}))


def test_an_edit_that_starts_from_an_adapter(place: Place) -> None:
    place.adapter("harm")
    edit = place.edit({o_proj(0): Copy(source="model")}).model_copy(update={"start": "harm"})
    with pytest.raises(EditError, match="is an adapter itself"):
        place.export(edit)


def test_an_output_that_exists_and_one_inside_an_input(place: Place) -> None:
    edit = place.edit({o_proj(0): low_rank(place.model, o_proj(0), rank=1)})
    before = {path: path.read_bytes() for path in place.export(edit).output.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="holds an output already"):
        place.export(edit)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(OutputError, match="input"):
        export_adapter(edit, place.checkpoints(), place.folders["model"] / "adapter")


@pytest.mark.parametrize(
    ("writes", "error"),
    [
        ("write_shard", OutputError("the disk is full")),
        ("write_bytes_atomic", OSError(errno.ENOSPC, "no space")),
        ("write_json_atomic", OSError(errno.ENOSPC, "no space")),
    ],
)
def test_a_failed_write_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, writes: str, error: Exception
) -> None:
    def full(*_: object) -> str:
        raise error

    monkeypatch.setattr(f"polysafe.edits.adapter.{writes}", full)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        place.export(place.edit({o_proj(0): low_rank(place.model, o_proj(0), rank=1)}))
    assert error is caught.value or str(place.folder) in str(caught.value.where)
    assert sorted(path.name for path in place.folder.iterdir()) == ["model"]


def test_no_local_name_is_in_the_folder(place: Place) -> None:
    place.adapter("harm")
    edit = place.edit({o_proj(1): AddDelta(of="harm", minus="model", scale=-1.0)})
    export = export_edit(edit, place.folders, place.folder / "adapter")
    for path in export.output.rglob("*"):
        assert not path.is_file() or str(place.folder).encode() not in path.read_bytes()
    assert config(export)["base_model_name_or_path"] is None
    assert export.to_json()["output"] == str(place.folder / "adapter")


def test_a_hub_origin_names_the_base(place: Place) -> None:
    edit = place.edit({o_proj(1): low_rank(place.model, o_proj(1), rank=1)})
    edit = edit.model_copy(update={"sources": {"model": SourceRecord(origin=f"org/name@{'0' * 40}")}})
    found = config(place.export(edit))
    assert (found["base_model_name_or_path"], found["revision"]) == ("org/name", "0" * 40)


def test_the_base_may_be_named(place: Place) -> None:
    edit = place.edit({o_proj(1): low_rank(place.model, o_proj(1), rank=1)})
    assert config(place.export(edit, base_name="org/other"))["base_model_name_or_path"] == "org/other"


def test_another_model_than_that_of_the_edit_is_refused(place: Place) -> None:
    place.descendant("other")
    edit = place.edit({o_proj(0): Copy(source="other")})
    sources = {name: record.model_copy(update={"files": {"f": "0"}}) for name, record in edit.sources.items()}
    edit = edit.model_copy(update={"sources": sources})
    with pytest.raises(MismatchError, match="is not the checkpoint that the edit was made for"):
        export_edit(edit, place.folders, place.folder / "adapter")
    assert export_edit(edit, place.folders, place.folder / "adapter", force=True).modules


def test_a_changed_adapter_does_not_verify(place: Place) -> None:
    export = place.export(place.edit({o_proj(0): low_rank(place.model, o_proj(0), rank=1)}))
    (export.output / "adapter_config.json").write_text("{}")
    report = verify_output(export.output)
    assert [problem.partition(":")[0] for problem in report.problems] == ["adapter_config.json"]


def test_outer_container_is_added_where_the_files_lack_it(tmp_path: Path) -> None:
    place = Place(tmp_path, "gpt2")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in place.model.tensors.items()}
    place.model = TinyModel(bare, place.model.config)
    place.folders["model"] = place.model.save(tmp_path / "bare")
    name = "h.1.mlp.c_fc.weight"
    export = place.same_logits(place.edit({name: low_rank(place.model, name, rank=2)}))
    assert export.modules[0].module == "transformer.h.1.mlp.c_fc"
    assert config(export)["fan_in_fan_out"] is True


def test_without_transformers_modules_are_called_as_in_the_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    export = place.export(place.edit({o_proj(0): low_rank(place.model, o_proj(0), 2)}))
    assert [module.module for module in export.modules] == [o_proj(0).removesuffix(".weight")]
    assert "modules are called as in the files" in export.notes[0]


def test_a_narrower_storage_type_is_told(place: Place) -> None:
    edit = place.edit({o_proj(0): low_rank(place.model, o_proj(0), rank=1)}, dtype="BF16")
    assert "BF16" in place.export(edit).notes[0]


@pytest.mark.parametrize("scale", [1e200, 1e300, -1e308])
@pytest.mark.parametrize("tensor", [o_proj(1), "model.norm.weight"])
def test_updates_that_no_number_holds(place: Place, scale: float, tensor: str) -> None:
    place.descendant("other")
    one = AddDelta(of="other", minus="model", scale=1.0)
    edit = place.edit({o_proj(0): one, tensor: AddDelta(of="other", minus="model", scale=scale)})
    with pytest.raises(EditError, match=r"the update is too large to be computed|does not fit|would be") as caught:
        place.export(edit, partial=True)
    assert caught.value.where == tensor
    assert not (place.folder / "adapter").exists()


def test_factors_that_no_norm_holds(place: Place) -> None:
    columns = place.model.tensors[o_proj(1)].shape[1]
    a, b = (torch.full((size, 1), 1e200, dtype=torch.float64) for size in (1, columns))
    update = AddLowRank(rows=torch.tensor([1]), a=a, b=b)
    with pytest.raises(EditError, match=r"the update is too large to be computed|does not fit|would be"):
        place.export(place.edit({o_proj(1): update}))
