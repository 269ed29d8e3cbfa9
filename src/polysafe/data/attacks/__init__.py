"""Attacks: known ways of rewriting a prompt so that a model answers what it would refuse."""

from polysafe.data.attacks.base import Attack, Material, Without, rewritten
from polysafe.data.attacks.registry import attack, attack_names, find_attacks

__all__ = ["Attack", "Material", "Without", "attack", "attack_names", "find_attacks", "rewritten"]
