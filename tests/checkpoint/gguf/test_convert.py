from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.gguf.convert import BLOCK_ELEMENTS, Conversion
from polysafe.checkpoint.gguf.header import read_gguf_header
from polysafe.errors import ArchitectureError, CheckpointError
from tests.gguf_files import ARCHITECTURES, TEMPLATE, needs_gguf, raw_header, write_gguf

pytestmark = needs_gguf()


def converted(path: Path, dtype: str = "F32") -> tuple[Conversion, dict[str, torch.Tensor]]:
    conversion = Conversion(read_gguf_header(path), dtype)
    tensors = {}
    for spec in conversion.specs:
        content = bytearray(b"".join(bytes(block) for block in conversion.blocks(spec.name)))
        assert len(content) == spec.nbytes
        tensors[spec.name] = torch.frombuffer(content, dtype=torch_dtype(dtype)).reshape(spec.shape)
    return conversion, tensors


def loaded(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


@pytest.mark.parametrize("kind", ["F32", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "qwen3moe"])
def test_streamed_tensors_are_those_that_transformers_loads(architecture: str, kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", architecture, type=kind)
    conversion, tensors = converted(path, "BF16")
    assert conversion.streamed
    assert conversion.notes == ()
    model = loaded(path)
    wanted = model.state_dict()
    tied = {name for name in wanted if wanted[name].data_ptr() in {wanted[each].data_ptr() for each in tensors}}
    assert set(tensors) <= set(wanted) == tied | set(tensors)
    for name, values in tensors.items():
        assert torch.equal(values, wanted[name].to(torch.bfloat16)), name


def test_stacked_experts_are_loaded_whole_and_saved_apart(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", "qwen3moe", type="Q8_0")
    conversion, tensors = converted(path)
    assert not conversion.streamed
    assert "loaded whole" in conversion.notes[0]
    fused = loaded(path).state_dict()["model.layers.1.mlp.experts.gate_up_proj"]
    for expert in range(4):
        name = f"model.layers.1.mlp.experts.{expert}"
        parts = [tensors[f"{name}.gate_proj.weight"], tensors[f"{name}.up_proj.weight"]]
        assert torch.equal(torch.cat(parts), fused[expert])


def test_a_tied_model_has_its_matrix_once(tmp_path: Path) -> None:
    conversion, tensors = converted(write_gguf(tmp_path / "m.gguf", tied=True))
    assert "lm_head.weight" not in tensors
    assert conversion.config.tie_word_embeddings


def test_blocks_are_smaller_than_a_large_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", type="Q8_0")
    _, whole = converted(path)
    monkeypatch.setattr("polysafe.checkpoint.gguf.convert.BLOCK_ELEMENTS", 7 * 64)
    conversion = Conversion(read_gguf_header(path), "F32")
    blocks = [bytes(block) for block in conversion.blocks("model.embed_tokens.weight")]
    assert len(blocks) > 10
    assert max(map(len, blocks)) == 7 * 64 * 4
    assert b"".join(blocks) == whole["model.embed_tokens.weight"].numpy().tobytes()
    assert BLOCK_ELEMENTS * 4 < 16 << 20


def test_config_and_tokenizer_say_nothing_of_quantisation_or_machine(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    path = write_gguf(tmp_path / "m.gguf", metadata={"general.name": "Tiny"})
    files = Conversion(read_gguf_header(path), "F16").side_files()
    config = json.loads(files["config.json"])
    assert (config["dtype"], config["architectures"]) == ("float16", ["LlamaForCausalLM"])
    assert files["chat_template.jinja"].decode() == TEMPLATE
    texts = [content for name, content in files.items() if name.endswith("config.json")]
    marks = (b"quantization", b"gguf", b"name_or_path", b"is_local", str(tmp_path).encode(), b"transformers_version")
    assert len(texts) == 3
    assert not [mark for mark in marks for content in texts if mark in content]
    for name, content in files.items():
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    ours = AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    sample = "<|im_start|>hello, Größe 你好<|im_end|>"
    assert ours(sample)["input_ids"] == theirs(sample)["input_ids"]
    assert ours.decode(ours(sample)["input_ids"]) == sample
    assert (ours.bos_token, ours.eos_token) == ("<s>", "<|im_end|>")


def test_files_beside_it_are_not_read(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    wanted = Conversion(read_gguf_header(path), "F32").side_files()
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": "evil", "auto_map": {"AutoTokenizer": ["x.Y", null]}}'
    )
    (tmp_path / "chat_template.jinja").write_text("evil")
    assert Conversion(read_gguf_header(path), "F32").side_files() == wanted


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    import gguf

    writer = gguf.GGUFWriter(path, "hyperbrain")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a"])
    writer.add_tensor("token_embd.weight", np.zeros((1, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ArchitectureError, match="'hyperbrain'") as caught:
        Conversion(read_gguf_header(path), "BF16")
    assert "llama" in str(caught.value.remedy)


def test_a_file_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        Conversion(read_gguf_header(write_gguf(tmp_path / "m.gguf", tokenizer=False)), "BF16")


def test_metadata_that_transformers_cannot_use_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(raw_header())
    with pytest.raises(CheckpointError):
        Conversion(read_gguf_header(path), "BF16")
    path = write_gguf(tmp_path / "n.gguf", metadata={"llama.attention.head_count": "many"})
    with pytest.raises(CheckpointError, match="transformers cannot make a model of it"):
        Conversion(read_gguf_header(path), "BF16")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", without=("blk.1.ffn_up",))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        Conversion(read_gguf_header(path), "BF16")


def test_tensors_without_a_place_are_told(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata={"llama.block_count": 1})
    conversion, tensors = converted(path)
    assert "9 tensors of the file have no place in LlamaForCausalLM: blk.1." in conversion.notes[0]
    assert not any("layers.1" in name for name in tensors)


def test_another_shape_than_the_metadata_say_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", metadata={"llama.feed_forward_length": 32})
    with pytest.raises(CheckpointError, match=r"mlp.*has the shape \[96, 64\], its metadata say \[32, 64\]"):
        converted(path)


@pytest.mark.hostile("gguf")
@pytest.mark.parametrize(
    ("value", "dtype", "wanted"), [(np.nan, "F32", "no finite"), (1e6, "F16", "too large for F16")]
)
def test_numbers_that_cannot_be_stored_are_refused(value: float, dtype: str, wanted: str, tmp_path: Path) -> None:
    def change(name: str, values: Any) -> Any:
        if name == "blk.0.ffn_down.weight":
            values[3, 5] = value
        return values

    path = write_gguf(tmp_path / "m.gguf", change=change)
    with pytest.raises(CheckpointError, match=wanted) as caught:
        converted(path, dtype)
    assert "model.layers.0.mlp.down_proj.weight" in str(caught.value)
