"""A whole audit of a real model beside plain `generate` of transformers on the same prompts, sorted by length.

    python -m benchmarks.speed.audit --model FOLDER --prompts 1000 --runs 1

Both sides are whole commands in the same type, greedy, without a judge. `plain` is what one would write: a model, a
tokenizer, prompts in its chat template from the longest to the shortest, 32 at a time, padded on the left. Prompts are
neutral words whose number follows the lengths of MultiJail, as in `benchmarks.speed.generate`. The share of answers
that are the same, and tokens a second of both, are printed with the ratios.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from pathlib import Path
from typing import Any

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, of_command
from benchmarks.speed.generate import length_of

SIDES = ("plain", "audit")
ROWS = 32
WORDS = ("one", "two", "three", "tree", "river", "house", "bread", "water", "garden", "letter", "window", "music")


def main() -> None:
    """Measures both sides and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--longest", type=int, default=192, help="words of the longest prompt")
    parser.add_argument("--dtype", choices=("F32", "BF16"), default="F32")
    parser.add_argument("--template", choices=("chat", "raw"), default="chat")
    parser.add_argument("--answers", type=Path, help="plain answers to the table PROMPTS go to this file")
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answers:
        options.answers.write_text(json.dumps(_plain(options)), encoding="utf-8")
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    table = _write_table(options)
    said: dict[str, dict[str, str]] = {}
    tokens: dict[str, int] = {}

    def measure(side: str) -> Measurement:
        taken, said[side], tokens[side] = _one(side, table, options)
        return taken

    sides = timing.in_turn(options.runs, options.sides, measure)
    print(f"\n{options.model.name}, {options.prompts} prompts, {options.dtype}, median of {options.runs} runs")
    speed = timing.Column("tokens/s", 1, lambda side, median: tokens[side] / median.wall)
    timing.print_sides(sides, timing.WALL, timing.CPU, speed, timing.PEAK, timing.PRIVATE)
    same = sum(said["audit"][name] == text for name, text in said["plain"].items()) / options.prompts
    ratios = {key: timing.ratio_of(sides["plain"], sides["audit"], key) for key in ("wall", "cpu")}
    told = ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items())
    print(f"plain / audit: {told}; {same:.1%} of answers are the same")
    content = {"model": options.model.name, "prompts": options.prompts, "dtype": options.dtype, "same": same}
    timing.save(options.output, {**content, "tokens": tokens, "sides": sides})


def _write_table(options: argparse.Namespace) -> Path:
    draw = random.Random(0)
    table: Path = options.folder / "neutral.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "language", "text"))
        for number in range(options.prompts):
            words = draw.choices(WORDS, k=length_of(draw.random(), options.longest))
            rows.writerow((number, "en", " ".join(words)))
    return table


def _one(side: str, table: Path, options: argparse.Namespace) -> tuple[Measurement, dict[str, str], int]:
    """What a side took, its answers by the numbers of their prompts, and how many tokens these have."""
    out: Path = options.folder / "audit"
    timing.remove(out)
    given = ("--max-tokens", str(options.max_tokens), "--dtype", options.dtype, "--template", options.template)
    if side == "audit":
        program = [sys.executable, "-m", "polysafe", "audit", str(options.model), "--answers-only", "--quiet"]
        command = [*program, "--safety", str(table), "--output", str(out), *given]
    else:
        program = [sys.executable, "-m", "benchmarks.speed.audit", "--model", str(options.model), "--table", str(table)]
        command = [*program, "--answers", str(out), *given]
    taken = of_command(command, {"POLYSAFE_CACHE": str(out.parent / "audit-cache"), "HF_HUB_OFFLINE": "1"})
    timing.remove(out.parent / "audit-cache")
    if side == "plain":
        found = json.loads(out.read_text(encoding="utf-8"))
        return taken, {name: each["text"] for name, each in found.items()}, sum(e["tokens"] for e in found.values())
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    return taken, {line["parallel"]: line["answer"] for line in lines}, sum(line["tokens"] for line in lines)


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[options.dtype]
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).eval()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    with options.table.open(newline="", encoding="utf-8") as file:
        texts = {row["id"]: row["text"] for row in csv.DictReader(file)}
    if options.template == "chat":
        asked = {
            name: tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for name, text in texts.items()
        }
    else:
        asked = texts
    order = sorted(asked, key=lambda name: -len(tokenizer(asked[name]).input_ids))
    answers = {}
    for start in range(0, len(order), ROWS):
        names = order[start : start + ROWS]
        special = options.template == "raw"  # templates write their own
        batch = tokenizer(
            [asked[name] for name in names], return_tensors="pt", padding=True, add_special_tokens=special
        )
        with torch.inference_mode():
            found = model.generate(
                **batch, max_new_tokens=options.max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        for name, row in zip(names, found[:, batch.input_ids.shape[1] :].tolist(), strict=True):
            ends = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
            text = tokenizer.decode(row[:ends], skip_special_tokens=True)
            answers[name] = {"text": text, "tokens": min(ends + 1, len(row))}
    return answers


if __name__ == "__main__":
    main()
