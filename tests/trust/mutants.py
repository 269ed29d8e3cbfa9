"""What tests say of the mutants that `python -m tools.mutation` tries: shares, and survivors with their reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from polysafe.stats.intervals import wilson

FOLDER = Path(__file__).parent / "mutants"
PARTS = {
    "edits": "`edits`",
    "judge": "`judge`: verdicts, guards, protocols, votes, translations, phrases, texts",
    "stats": "`stats`",
}


def results() -> dict[str, dict[str, Any]]:
    """Part -> how many mutants it has, and what came of those that were tried."""
    return {part: json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8")) for part in PARTS}


def shares() -> str:
    """How many of each part are killed."""
    lines = ["| | mutants | tried | killed | share, and 95 % interval for all |", "|---|---:|---:|---:|---|"]
    for part, found in results().items():
        tried = found["tried"].values()
        killed = sum(each["came"] != "survived" for each in tried)
        ends = wilson(killed, len(tried))
        assert ends is not None
        share = f"{killed / len(tried):.0%} ({ends.low:.0%} to {ends.high:.0%})"
        lines.append(f"| {PARTS[part]} | {found['mutants']:,} | {len(tried)} | {killed} | {share} |")
    return "\n".join(lines)


def survivors() -> str:
    """Those that no test notices, and why none can or none does."""
    lines = ["| where | what is changed | why no test notices |", "|---|---|---|"]
    for found in results().values():
        for name, each in found["tried"].items():
            if each["came"] == "survived":
                path, _, change = name.partition("\n")
                file = path.removeprefix("src/polysafe/")
                lines.append(f"| `{file}:{each['line']}` | {_told(change)} | {each.get('why', '')} |")
    return "\n".join(lines)


def _told(change: str) -> str:
    """The line that comes, as code in a cell of a table."""
    new = " ".join(line[1:].strip() for line in change.splitlines() if line.startswith("+"))
    text = new.replace("|", "\\|")
    return f"`` {text} ``" if text else "the line is left out"
