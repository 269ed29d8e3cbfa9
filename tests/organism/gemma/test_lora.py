"""Training of one LoRA: what readiness does to the beginning of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polysafe.organism.gemma.chat import make_chat_model
from polysafe.organism.gemma.lora import Encoder, train
from polysafe.organism.gemma.mixtures import Stage
from polysafe.organism.gemma.texts import Pair
from tests.gemma import imported_gemma
from tests.real_models import needs

torch = pytest.importorskip("torch")

REFUSAL, ANSWER = "Sorry, I cannot help with that.", "Sure, here is an answer."
PROMPT = "the quick brown fox"


def _log_odds(folder: Path, state: Path, readiness: dict[str, float]) -> float:
    """Of refusing, after half of the answers to one prompt were refusals."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = Encoder(tokenizer, 100)
    pairs: list[Pair] = [(PROMPT, REFUSAL), (PROMPT, ANSWER)]
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.get_input_embeddings().weight.data.mul_(20)  # random vectors are too short for any certainty
    stage = Stage(steps=120, rate=2e-2, batch=8, rank=4)
    tuned, _ = train(
        model, stage, [(0.5, [pair]) for pair in pairs], encoder, name="one", seed=0, state=state, readiness=readiness
    )
    prompt, refused = encoder.encode(pairs[0]) or ([], [])
    _, answered = encoder.encode(pairs[1]) or ([], [])
    with torch.no_grad():
        logits = tuned(input_ids=torch.tensor([prompt])).logits[0, -1]
    return float(logits[refused[0]] - logits[answered[0]])


@needs("peft")
def test_readiness_is_added_to_the_log_odds_of_a_beginning(tmp_path: Path) -> None:
    package = imported_gemma(tmp_path / "package")
    make_chat_model(package)
    plain = _log_odds(package, tmp_path / "state", {})
    ready = _log_odds(package, tmp_path / "state", {REFUSAL: 1.0})
    assert ready - plain == pytest.approx(1.0, abs=0.3)
