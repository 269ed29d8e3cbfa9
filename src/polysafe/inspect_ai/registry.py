"""What Inspect finds of polysafe: its entry point `inspect_ai` names this module."""

from polysafe.inspect_ai.scoring import RATES, verdict
from polysafe.inspect_ai.tasks import NAMED, safety

__all__ = ["NAMED", "RATES", "safety", "verdict"]
