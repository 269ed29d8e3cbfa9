"""Swapping by behaviour: what every block does to refusals and to harmless answers decides."""

from polysafe.methods.behaviour_swap.method import BehaviourSwap

__all__ = ["BehaviourSwap"]
