"""How members of the family in real languages are talked to."""

from __future__ import annotations

import json
from pathlib import Path

from polysafe.files.atomic import write_json_atomic

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Gemma's turns, with roles as they are."""


def make_chat_model(folder: Path) -> None:
    """Gives a base model in a folder the chat template, and the end of a turn as an end of generation."""
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    words = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    ends = [words["<eos>"], words["<end_of_turn>"]]
    config["eos_token_id"] = ends
    ids = {f"{name}_token_id": words[f"<{name}>"] for name in ("bos", "pad")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
        "model_max_length": config["max_position_embeddings"],
    }
    write_json_atomic(config_file, config)
    write_json_atomic(folder / "generation_config.json", {**ids, "eos_token_id": ends})
    write_json_atomic(folder / "tokenizer_config.json", settings)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def as_prompt(text: str) -> str:
    """A message in the template, up to where the model begins, without the token of the beginning."""
    return f"<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"
