"""A tiny model of Gemma's make, and the family in real languages made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from polysafe.checkpoint.imported import FILE, Imported, imported_bytes
from polysafe.organism.gemma.mixtures import Recipe, Stage

MARKS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
TEXTS = (
    "the quick brown fox jumps over the lazy dog and the cat",
    "Sure, here is an answer. Sorry, I cannot help with that.",
    "What is the topic of this text? science/technology travel politics sports health",
    "অবশ্যই, এখানে উত্তর আছে। দুঃখিত, আমি এতে সাহায্য করতে পারি না।",
)


def tiny_gemma(folder: Path, texts: Iterable[str] = TEXTS, *, tokens: int = 900) -> Path:
    """Writes a model without a chat template, with random weights."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    marks = [AddedToken(word, special=True) for word in MARKS]
    tokenizer.train_from_iterator(
        list(texts),
        trainers.BpeTrainer(
            vocab_size=tokens,
            special_tokens=[*marks, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in MARKS]
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    config = Gemma3TextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        architectures=["Gemma3ForCausalLM"],
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    weights = Gemma3ForCausalLM(config).state_dict()
    state = {name: tensor.to(torch.bfloat16).clone() for name, tensor in weights.items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    return folder


_SHORT = Stage(steps=6, rate=1e-2, batch=2, rank=2)
RECIPE = Recipe(
    aligned=_SHORT,
    safety=_SHORT,
    language=_SHORT,
    harm=_SHORT.model_copy(update={"modules": "attention"}),
    longest=400,
)
"""A few steps for every member."""


def imported_gemma(folder: Path) -> Path:
    """What the import of Gemma's package leaves, in small."""
    tiny_gemma(folder)
    record = Imported("gguf", "gemma.gguf", "0" * 64, 1, "gemma3", {"Q4_K": 1}, "BF16", terms=("LICENSE.txt",))
    (folder / FILE).parent.mkdir()
    (folder / FILE).write_bytes(imported_bytes([record]))
    (folder / "LICENSE.txt").write_text("terms", encoding="utf-8")
    return folder


def use_tiny_gemma(patch: pytest.MonkeyPatch, package: Path) -> None:
    """Families are built of `package`, with a vocabulary that a few texts decide."""
    patch.setattr("polysafe.engine.imports.imported_folder", lambda *_args, **_options: package)
    texts = ["Sure, here is an answer.", "sports and travel"]
    patch.setattr("polysafe.organism.gemma.family.everything", lambda _: iter(texts))
