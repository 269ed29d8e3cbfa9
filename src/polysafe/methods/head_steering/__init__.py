"""Head steering (Banerjee et al., EMNLP 2025)."""

from polysafe.methods.head_steering.method import HeadSteering

__all__ = ["HeadSteering"]
