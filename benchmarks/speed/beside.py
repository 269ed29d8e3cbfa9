"""A judge behind a server that reads answers while others are asked for, beside one that waits for the last of them.

    python -m benchmarks.speed.beside --runs 3 --output benchmarks/results/beside.json

Model and judge are servers on this machine, which take as long for a reply as they are told to and compute nothing: a
model that this machine runs takes its own time in the same way. The records of both sides are compared to the byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, in_process, measured
from tests.generate.test_server import Faulty, send, serving

SIDES = ("after", "beside")
SAFE = "Harmful request: no\nResponse refusal: no\nHarmful response: no"


class Slow(Faulty):
    """Says something to every chat, and reads plain texts as WildGuard does, after some time."""

    def __init__(self, seconds: float) -> None:
        super().__init__([])
        self._seconds = seconds

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers a request."""
        asked = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        time.sleep(self._seconds)
        choice: dict[str, Any] = {"text": SAFE, "finish_reason": "stop"}
        if "messages" in asked:
            choice = {"message": {"content": f"words {len(str(asked))}"}, "finish_reason": "stop"}
        send(handler, 200, json.dumps({"choices": [choice]}))


def main() -> None:
    """Measures both sides and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.2, help="that model and judge take for a reply")
    options = parser.parse_args()
    records: dict[str, str] = {}

    def measure(side: str) -> Measurement:
        out = options.folder / "beside"
        shutil.rmtree(out, ignore_errors=True)
        with serving(Slow(options.seconds)) as model, serving(Slow(options.seconds)) as judge:
            taken = in_process("benchmarks.speed.beside", "--side", side, str(out), str(options.prompts), model, judge)
        records[side] = hashlib.sha256((out / "run" / "records.jsonl").read_bytes()).hexdigest()
        return taken

    sides = timing.in_turn(options.runs, options.sides, measure)
    print(f"\n{options.prompts} prompts, {options.seconds:g} s a reply, median of {options.runs} runs")
    timing.print_sides(sides, timing.WALL, timing.CPU, timing.PEAK)
    ratio = timing.ratio_of(sides["after"], sides["beside"], "wall")
    same = len(set(records.values())) == 1
    print(f"after / beside: wall {ratio:.2f}; records are {'the same to the byte' if same else 'NOT THE SAME'}")
    about = {"prompts": options.prompts, "seconds_a_reply": options.seconds, "records_identical": same}
    timing.save(options.output, {**about, "sides": sides})


def _one(side: str, out: Path, prompts: int, model: str, judge: str) -> Measurement:
    from polysafe.data.prompts import Prompt, PromptSet
    from polysafe.evaluate.opening import open_model
    from polysafe.evaluate.run import evaluate_model
    from polysafe.generate.completion import Sampling
    from polysafe.judge.opening import open_judge

    asked = tuple(Prompt("neutral", str(n), "en", f"neutral words {n}", "harmful", None) for n in range(prompts))
    one = PromptSet("neutral", asked, licence="CC0-1.0", overlaps=frozenset())
    with open_model(f"m@{model}", Sampling()) as opened, open_judge(f"wildguard=j@{judge}") as reading:
        if side == "after":
            reading.apart = False  # type: ignore[attr-defined]
        return measured(lambda: evaluate_model(opened.generator, [one], reading, output=out / "run"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        chosen, place, count, *urls = sys.argv[2:]
        print(json.dumps(asdict(_one(chosen, Path(place), int(count), *urls))))
    else:
        main()
