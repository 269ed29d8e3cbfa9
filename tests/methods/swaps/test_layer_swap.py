"""Layer swapping on checkpoints: what lands where, what is refused, what is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.roles import Kind, Module
from polysafe.edits.edit import Edit, Provenance
from polysafe.edits.operations import Blend, Copy
from polysafe.errors import ArchitectureError, CheckpointError, MismatchError
from polysafe.methods.layer_swap import LayerSwap
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, pattern, result, same_bits, state
from tests.models import TinyModel, bowl, bump, layer_of, tiny_model, trio, write_tokenizer

Granularity = Literal["layer", "module"]
both = pytest.mark.parametrize("granularity", ["layer", "module"])


def _method(**options: Any) -> LayerSwap:
    return LayerSwap(**{"base": "base", "safety": "safety", "language": "sw", **options})


def _provenance(edit: Edit) -> Provenance:
    return edit.provenance[0]


def _experts(folder: Path, **models: TinyModel) -> dict[str, Path]:
    return {name: model.save(folder / name) for name, model in models.items()}


def _origin(edit: Edit, name: str) -> str:
    """Where a tensor of the result comes from: a source, or `blend`."""
    (operation,) = edit.steps.get(name, (Copy(source=edit.start),))
    return operation.source if isinstance(operation, Copy) else "blend"


def test_expected_picture(tmp_path: Path, opened: Opener) -> None:
    """A bump of 25 % against a bowl of 25 %: the two ends stay, the middle is swapped, two layers each blend."""
    edit = _method(granularity="layer").fit(opened(trio(tmp_path, layers=32).paths))
    assert pattern(_provenance(edit).decisions) == "l" * 6 + "b" * 2 + "s" * 14 + "b" * 2 + "l" * 8


@both
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt_neox"])
def test_every_tensor_lands_where_the_table_says(
    tmp_path: Path, opened: Opener, family: str, granularity: Granularity
) -> None:
    sources = opened(trio(tmp_path, family, layers=16).paths)
    edit = _method(granularity=granularity).fit(sources)
    choices = {d.block: d.choice for d in _provenance(edit).decisions}
    assert {"safety", "language", "blend"} <= set(choices.values())
    origin_of = {"safety": "safety", "language": "sw", "blend": "blend"}
    for name, role in sources["sw"].architecture.roles.items():
        if role.layer is None:
            expected = "blend"
        elif granularity == "layer":
            expected = origin_of[choices[f"layers.{role.layer}"]]
        elif role.module is not None:
            expected = origin_of[choices[f"layers.{role.layer}.{role.module}"]]
        else:
            assert role.kind is Kind.NORM
            expected = "sw"
        assert _origin(edit, name) == expected, name


@pytest.mark.parametrize("norms", ["language", "follow_attention", "blend"])
def test_norms_between_modules(llama: Sources, norms: str) -> None:
    edit = _method(norms=norms).fit(llama)
    attention = {d.layer: d.choice for d in _provenance(edit).decisions if d.module == "attention"}
    assert "safety" in attention.values()
    for name, role in llama["sw"].architecture.roles.items():
        if role.kind is not Kind.NORM or role.layer is None:
            continue
        followed = {"safety": "safety", "language": "sw", "blend": "blend"}[attention[role.layer]]
        expected = {"language": "sw", "blend": "blend", "follow_attention": followed}[norms]
        assert _origin(edit, name) == expected


@both
@pytest.mark.parametrize("outside", ["blend", "language", "safety", "base"])
def test_outside_of_the_layers(llama: Sources, outside: str, granularity: Granularity) -> None:
    edit = _method(outside=outside, granularity=granularity).fit(llama)
    expected = "sw" if outside == "language" else outside
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert _origin(edit, name) == expected
    choices = {d.block: d.choice for d in _provenance(edit).decisions if d.layer is None}
    assert {choices[block] for block in ("embedding", "final_norm", "head")} == {outside}


def test_blends_weigh_the_safety_expert(llama: Sources) -> None:
    edit = _method(safety_weight=0.3).fit(llama)
    merged, safety, language = result(edit, llama), state(llama, "safety"), state(llama, "sw")
    expected = 0.3 * safety["lm_head.weight"].double() + 0.7 * language["lm_head.weight"].double()
    assert torch.allclose(merged["lm_head.weight"].double(), expected, rtol=2**-8)
    wide = torch.lerp(language["lm_head.weight"].float(), safety["lm_head.weight"].float(), 0.3)
    assert torch.allclose(merged["lm_head.weight"].float(), wide, rtol=2**-8)


@pytest.mark.fault(17, "weights of zero and one")
@both
def test_weight_zero_and_one_reproduce_the_experts(llama: Sources, granularity: Granularity) -> None:
    """With a threshold beyond every score all blocks blend; the two ends of the weight are copies."""
    everything = {"tau": 10.0, "granularity": granularity}
    stays = _method(**everything, safety_weight=0.0).fit(llama)
    assert stays.steps == {}
    moves = result(_method(**everything, safety_weight=1.0).fit(llama), llama)
    safety, language = state(llama, "safety"), state(llama, "sw")
    for name, tensor in moves.items():
        kept = granularity == "module" and "layernorm" in name
        assert same_bits(tensor, (language if kept else safety)[name]), name


def test_swapped_blocks_taken_back_restore_the_language_expert(llama: Sources) -> None:
    edit = _method().fit(llama)
    assert len(edit.touched) > 10
    original, merged = state(llama, "sw"), result(edit, llama)
    restored = {name: original[name] if name in edit.touched else tensor for name, tensor in merged.items()}
    assert differing(restored, original) == []


@pytest.mark.fault(5, "all zero")
def test_degenerate_experts(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=4)
    expert = base.updated(1, bump(4))
    unmoved_language = opened(_experts(tmp_path / "a", base=base, safety=expert, sw=base))
    edit = _method(granularity="layer").fit(unmoved_language)
    assert pattern(_provenance(edit).decisions) == "ssss"
    assert any("'sw' equals 'base'" in warning for warning in _provenance(edit).warnings)
    unmoved_safety = opened(_experts(tmp_path / "b", base=base, safety=base, sw=expert))
    assert pattern(_provenance(_method(granularity="layer").fit(unmoved_safety)).decisions) == "llll"
    all_equal = opened(_experts(tmp_path / "c", base=base, safety=base, sw=base))
    for granularity in ("layer", "module"):
        edit = _method(granularity=granularity).fit(all_equal)
        assert differing(result(edit, all_equal), base.tensors) == []


@pytest.mark.parametrize("factor", [0.1, 3.0, 100.0])
@both
def test_scale_of_a_task_vector_does_not_matter(
    tmp_path: Path, opened: Opener, factor: float, granularity: Granularity
) -> None:
    base = tiny_model(layers=16, dtype=torch.float32)
    safety, language = base.updated(1, bump(16, size=0.004)), base.updated(2, bowl(16, size=0.004))
    scaled = TinyModel(
        {name: base.tensors[name] + factor * (safety.tensors[name] - base.tensors[name]) for name in base.tensors},
        base.config,
    )
    method = _method(granularity=granularity)
    before = method.fit(opened(_experts(tmp_path / "a", base=base, safety=safety, sw=language)))
    after = method.fit(opened(_experts(tmp_path / "b", base=base, safety=scaled, sw=language)))
    assert pattern(_provenance(after).decisions) == pattern(_provenance(before).decisions)
    assert {"s", "l"} <= set(pattern(_provenance(before).decisions))


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_mirrored_experts_give_the_same_model(tmp_path: Path, opened: Opener, alpha: float) -> None:
    there = trio(tmp_path, layers=16)
    method = _method(granularity="layer", safety_weight=alpha)
    mirrored = _method(granularity="layer", safety_weight=1 - alpha)
    forth = opened(there.paths)
    back = opened({"base": there.base, "safety": there.language, "sw": there.safety})
    first, second = method.fit(forth), mirrored.fit(back)
    swapped = pattern(_provenance(first).decisions).translate(str.maketrans("sl", "ls"))
    assert pattern(_provenance(second).decisions) == swapped
    assert differing(result(first, forth), result(second, back)) == []


def test_per_family_shares_differ_from_joint_ones_on_a_trio(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, layers=32).paths)
    joint = pattern(_provenance(_method().fit(sources)).decisions)
    per_family = pattern(_provenance(_method(normalise="per_family").fit(sources)).decisions)
    assert joint != per_family


@both
def test_aggregations_can_be_exchanged(llama: Sources, granularity: Granularity) -> None:
    default = _provenance(_method(granularity=granularity).fit(llama))
    named = {"layer": "l1", "module": "l2"}[granularity]
    other = {"layer": "l2", "module": "l1"}[granularity]
    same = _provenance(_method(granularity=granularity, aggregate=named).fit(llama))
    changed = _provenance(_method(granularity=granularity, aggregate=other).fit(llama))
    assert same.decisions == default.decisions
    assert changed.decisions[0].detail["n_safety"] != default.decisions[0].detail["n_safety"]
    ratios = [r for name, r in default.evidence["relative_update_norms"]["safety"].items() if layer_of(name) == 0]
    if granularity == "layer":
        assert default.decisions[0].detail["n_safety"] == pytest.approx(sum(ratios))
        assert changed.decisions[0].detail["n_safety"] == pytest.approx(sum(r * r for r in ratios) ** 0.5)


class _CountingReader:
    """Passes reads on and counts the rows of each tensor."""

    def __init__(self, source: Source) -> None:
        self._reader = source.reader
        self.rows_read: dict[str, int] = {}
        self.names, self.spec, self.whole = self._reader.names, self._reader.spec, self._reader.whole

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        self.rows_read[name] = self.rows_read.get(name, 0) + stop - start
        return self._reader.rows(name, start, stop)


def _counted(sources: Sources) -> tuple[Sources, Mapping[str, _CountingReader]]:
    readers = {name: _CountingReader(source) for name, source in sources.items()}
    counted = {n: Source(n, s.checkpoint, s.architecture, readers[n]) for n, s in sources.items()}
    return counted, readers


@both
def test_every_row_is_read_once(tmp_path: Path, opened: Opener, granularity: Granularity) -> None:
    sources, readers = _counted(opened(trio(tmp_path, layers=8).paths))
    _method(granularity=granularity).fit(sources)
    for reader in readers.values():
        assert reader.rows_read == {n: sources["base"].reader.spec(n).rows for n in reader.rows_read}
        assert len(reader.rows_read) == 7 * 8


@pytest.mark.fault(7, "fused and stacked tensors", "bytes that an independent computation gives")
@both
@pytest.mark.parametrize(
    ("family", "members"),
    [
        ("llama", {"attention": 4, "mlp": 3}),
        ("qwen2", {"attention": 7, "mlp": 3}),
        ("qwen3", {"attention": 4, "mlp": 3}),
        ("gemma2", {"attention": 4, "mlp": 3}),
        ("phi3", {"attention": 2, "mlp": 2}),
        ("mixtral", {"attention": 4, "mlp": 6}),
        ("qwen3_moe", {"attention": 4, "mlp": 6}),
        ("gpt_oss", {"attention": 8, "mlp": 8}),
        ("gpt2", {"attention": 4, "mlp": 4}),
        ("gpt_neox", {"attention": 4, "mlp": 4}),
    ],
)
def test_layouts(
    tmp_path: Path, opened: Opener, family: str, members: Mapping[str, int], granularity: Granularity
) -> None:
    sources = opened(trio(tmp_path, family, layers=8).paths)
    provenance = _provenance(_method(granularity=granularity).fit(sources))
    scored = provenance.evidence["relative_update_norms"]["language"]
    roles = sources["base"].architecture.roles
    counts = dict.fromkeys(members, 0)
    for name, ratios in scored.items():
        role = roles[name]
        if role.layer == 3 and role.module is not None:
            counts[role.module.value] += len(ratios) if isinstance(ratios, list) else 1
    assert counts == members
    blocks = 8 if granularity == "layer" else 16
    assert len(pattern(provenance.decisions)) == blocks
    fused = family in {"phi3", "gpt_oss", "gpt2", "gpt_neox"}
    mixture = family in {"mixtral", "qwen3_moe", "gpt_oss"}
    assert any("fused projection is scored" in note for note in provenance.notes) == fused
    assert any("every expert" in note for note in provenance.notes) == mixture
    assert not any("not scored" in warning for warning in provenance.warnings)


def test_stacked_and_separate_experts_score_alike(tmp_path: Path, opened: Opener) -> None:
    """The experts of gpt-oss lie in one tensor; each slice has the score that it would have on its own."""
    sources = opened(trio(tmp_path, "gpt_oss", layers=2).paths)
    ratios = _provenance(_method().fit(sources)).evidence["relative_update_norms"]["safety"]
    name = "model.layers.1.mlp.experts.down_proj"
    base, safety = (state(sources, source)[name].double() for source in ("base", "safety"))
    expected = [float((safety[e] - base[e]).norm() / base[e].norm()) for e in range(2)]
    assert ratios[name] == pytest.approx(expected, rel=1e-6)


@both
def test_experts_of_a_mixture_can_be_left_unscored(tmp_path: Path, opened: Opener, granularity: Granularity) -> None:
    sources = opened(trio(tmp_path, "mixtral", layers=8).paths)
    edit = _method(granularity=granularity, moe="attention_only").fit(sources)
    provenance = _provenance(edit)
    assert not any("experts" in name for name in provenance.evidence["relative_update_norms"]["safety"])
    assert any("48 projections are not scored" in warning for warning in provenance.warnings)
    moved = {name for name in edit.touched if "experts" in name}
    assert bool(moved) == (granularity == "layer")


def test_unknown_tensors_are_told_and_follow_their_block(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, "gpt_oss", layers=8).paths)
    edit = _method().fit(sources)
    assert any("8 tensors is unknown" in warning for warning in _provenance(edit).warnings)
    attention = {d.layer: d.choice for d in _provenance(edit).decisions if d.module == Module.ATTENTION.value}
    for layer, choice in attention.items():
        assert (f"model.layers.{layer}.self_attn.sinks" in edit.steps) == (choice != "language")


def test_biases_can_be_left_unscored(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, "qwen2", layers=8).paths)
    scored = _provenance(_method(score_biases=False).fit(sources)).evidence["relative_update_norms"]["safety"]
    assert len(scored) == 7 * 8
    assert not any(name.endswith("bias") for name in scored)


def _without(model: TinyModel, part: str) -> TinyModel:
    return TinyModel({name: t for name, t in model.tensors.items() if part not in name}, model.config)


def test_a_block_without_scored_tensors_is_an_error_unless_allowed(tmp_path: Path, opened: Opener) -> None:
    """Layer 2 keeps the norms of its attention but none of its projections, as in hybrids with other mixers."""
    base = tiny_model("qwen3", layers=4)
    models = {"base": base, "safety": base.updated(1, bump(4)), "sw": base.updated(2, bowl(4))}
    for letter in "qkvo":
        models = {n: _without(model, f"layers.2.self_attn.{letter}_proj") for n, model in models.items()}
    sources = opened(_experts(tmp_path, **models))
    with pytest.raises(ArchitectureError, match=r"layers\.2\.attention"):
        _method().fit(sources)
    edit = _method(unscored="language").fit(sources)
    assert "layers.2.attention" not in {d.block for d in _provenance(edit).decisions}
    assert "model.layers.2.self_attn.q_norm.weight" not in edit.steps
    assert any("layers.2.attention" in warning for warning in _provenance(edit).warnings)
    by_layer = _method(granularity="layer").fit(sources)
    assert [d.layer for d in _provenance(by_layer).decisions if d.score is not None] == [0, 1, 2, 3]


def test_published_names_are_refused_where_there_are_none(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, "gpt2").paths)
    with pytest.raises(ArchitectureError, match="published program"):
        _method(arithmetic="authors").fit(sources)


@pytest.mark.fault(6, "a base that is no ancestor")
def test_a_base_that_is_no_ancestor_is_refused(tmp_path: Path, opened: Opener) -> None:
    base, stranger = tiny_model(seed=1), tiny_model(seed=2)
    sources = opened(_experts(tmp_path, base=base, safety=base.updated(3, bump(4)), sw=stranger.updated(4, bowl(4))))
    with pytest.raises(MismatchError, match=r"'sw' was fine-tuned from.*largest: model\.layers") as refusal:
        _method().fit(sources)
    assert str(refusal.value).count("model.layers") == 3
    assert _method(allow_unrelated_base=True).fit(sources).start == "sw"


@pytest.mark.fault(5, "NaN and infinity are traced to their tensor")
@pytest.mark.parametrize("arithmetic", ["float32", "authors"])
@pytest.mark.parametrize("culprit", ["base", "safety", "sw"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, opened: Opener, culprit: str, arithmetic: str, value: float
) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    base = tiny_model()
    models = {"base": base, "safety": base.updated(1, bump(4)), "sw": base.updated(2, bowl(4))}
    models[culprit].tensors[name][3, 4] = value
    with pytest.raises(CheckpointError, match=f"{name} of '{culprit}' holds NaN or infinity"):
        _method(arithmetic=arithmetic).fit(opened(_experts(tmp_path, **models)))


@pytest.mark.fault(7, "padded and extended vocabularies")
def test_extended_vocabulary_keeps_embeddings_and_swaps_layers(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=8)
    wider = base.updated(2, bowl(8))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        wider.tensors[name] = torch.cat([wider.tensors[name], wider.tensors[name][:4]])
    wider.config["vocab_size"] = 44
    sources = opened(_experts(tmp_path, base=base, safety=base.updated(1, bump(8)), sw=wider))
    edit = _method().fit(sources)
    outside = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")
    assert not set(outside) & edit.steps.keys()
    assert {layer_of(name) for name in edit.touched} - {None}
    assert any("vocabularies differ" in note and "44" in note for note in _provenance(edit).notes)
    for outside_choice in ("blend", "safety", "base"):
        with pytest.raises(MismatchError, match=f"outside: {outside_choice}"):
            _method(outside=outside_choice).fit(sources)
    assert _method(outside="language").fit(sources).steps == edit.steps


def test_token_ids_with_another_meaning_count_as_another_vocabulary(tmp_path: Path, opened: Opener) -> None:
    there = trio(tmp_path, layers=8)
    write_tokenizer(there.language, 40, first_word=4)
    sources = opened(there.paths)
    edit = _method().fit(sources)
    assert "lm_head.weight" not in edit.steps
    assert any("token 3 is 'w3' in 'base' and 'w4' in 'sw'" in note for note in _provenance(edit).notes)
    forced = _method(outside="blend").fit(sources)
    assert isinstance(forced.steps["lm_head.weight"][0], Blend)
    assert any("vocabularies are mixed" in warning for warning in _provenance(forced).warnings)


@pytest.mark.fault(6, "storage types")
def test_mixed_storage_types_are_told(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=8, dtype=torch.float32)
    safety, language = base.updated(1, bump(8)).to(torch.float16), base.updated(2, bowl(8)).to(torch.bfloat16)
    sources = opened(_experts(tmp_path, base=base, safety=safety, sw=language))
    edit = _method().fit(sources)
    assert any("base F32, safety F16, sw BF16" in note for note in _provenance(edit).notes)
    assert {tensor.dtype for tensor in result(edit, sources).values()} == {torch.bfloat16}


def test_borderline_decisions_are_listed(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, layers=32).paths)
    provenance = _provenance(_method().fit(sources))
    close = [d for d in provenance.decisions if d.borderline]
    assert close
    for decision in close:
        assert decision.score is not None
        assert abs(abs(decision.score) - 0.001) < 1.5e-4
    assert any(f"{len(close)} of 64 decisions" in warning for warning in provenance.warnings)


def test_provenance_says_everything(llama: Sources) -> None:
    method = _method(granularity="layer", tau=0.002, tau_mode="depth_scaled")
    edit = method.fit(llama)
    provenance = _provenance(edit)
    assert (provenance.method, provenance.label) == ("layer_swap.v1", "layer_swap.layer")
    assert LayerSwap.model_validate(provenance.options) == method
    assert provenance.evidence["tau"] == pytest.approx(0.008)
    assert set(edit.sources) == {"base", "safety", "sw"}
    assert (edit.start, method.uses) == ("sw", ("base", "safety", "sw"))


def test_an_edit_survives_its_file(tmp_path: Path, llama: Sources) -> None:
    edit = _method().fit(llama)
    assert Edit.load(edit.save(tmp_path)) == edit
