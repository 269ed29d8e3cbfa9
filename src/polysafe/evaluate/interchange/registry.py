"""What Inspect finds of polysafe: its entry point `inspect_ai` names this module."""

from polysafe.evaluate.interchange.scoring import RATES, verdict
from polysafe.evaluate.interchange.tasks import NAMED, safety

__all__ = ["NAMED", "RATES", "safety", "verdict"]
