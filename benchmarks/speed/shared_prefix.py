"""Prompts that begin alike, as a judge's do: the beginning run once against every prompt run whole.

    python -m benchmarks.speed.shared_prefix --model MODEL --runs 3 --output benchmarks/results/shared_prefix.json

One process per side and run, alternating. Prompts are neutral words behind instructions of 300 words, answers are as
short as a verdict; the share of answers that are the same is printed with the ratio of processor seconds.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path

from benchmarks.frame import timing
from benchmarks.frame.measure import in_process, measured

SIDES = ("whole", "shared")
WORDS = ("one", "two", "three", "tree", "river", "house")
INSTRUCTIONS = 300
"""Words before every prompt, about as many as the policy of a guard model."""
TOKENS = 6
"""Budget of an answer: a verdict."""


def main() -> None:
    """Measures both sides and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    timing.add_side(parser, SIDES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=64)
    options = parser.parse_args()
    if options.side:
        _side(options)
        return
    shared = ["--model", str(options.model), "--prompts", str(options.prompts), "--folder", str(options.folder)]
    options.folder.mkdir(parents=True, exist_ok=True)
    sides = timing.in_turn(
        options.runs, options.sides, lambda side: in_process("benchmarks.speed.shared_prefix", "--side", side, *shared)
    )
    timing.print_sides(sides, timing.WALL, timing.CPU, timing.PEAK, timing.PRIVATE)
    one, other = (json.loads((options.folder / f"answers-{side}.json").read_text()) for side in SIDES)
    same = sum(other[name] == text for name, text in one.items()) / len(one)
    ratio = timing.ratio_of(sides["whole"], sides["shared"], "cpu")
    print(f"whole / shared {ratio:.2f} of CPU seconds; {100 * same:.0f} % of {len(one)} answers are the same")
    timing.save(options.output, {"model": options.model.name, "prompts": options.prompts, "same": same, "sides": sides})


def _side(options: argparse.Namespace) -> None:
    from polysafe.checkpoint.opened import open_source
    from polysafe.generate import shared_prefix
    from polysafe.judge.backend import Chat, LocalBackend, Message
    from polysafe.probe.model import load_model
    from polysafe.probe.render import load_tokenizer
    from polysafe.threads import threads

    draw = random.Random(0)
    before = " ".join(draw.choices(WORDS, k=INSTRUCTIONS))
    texts = [f"{before} {' '.join(draw.choices(WORDS, k=draw.randint(10, 60)))}" for _ in range(options.prompts)]
    chats = [Chat(str(number), (Message("user", text),)) for number, text in enumerate(texts)]
    if options.side == "whole":
        shared_prefix.LEAST = 1 << 30
    answers: dict[str, str] = {}
    with threads(1), open_source(options.model) as source:
        backend = LocalBackend(load_model(source), load_tokenizer(options.model), TOKENS)
        list(backend.complete([Chat("first", (Message("user", "one"),))]))
        found = measured(lambda: answers.update((each.id, each.text) for each in backend.complete(chats)))
    (options.folder / f"answers-{options.side}.json").write_text(json.dumps(answers))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
