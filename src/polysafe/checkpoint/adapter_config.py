"""What `adapter_config.json` says of a LoRA adapter: what merging it needs, if that is all there is to it.

Whatever would make the merged model another than W + s·B·A is refused by its name: the factors alone do not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.source import read_small_json
from polysafe.confined import Confined
from polysafe.errors import CheckpointError, MismatchError

CONFIG = "adapter_config.json"
MAX_CONFIG = 10_000_000
"""Most bytes of the file. The largest, with a rank for every expert of a large model, have a few millions."""

_STARTS = ("gaussian", "eva", "orthogonal")
"""Initialisations that leave the base as it is. PiSSA, OLoRA, CorDA and others take what they begin with out of it."""

_SWITCHES = ("use_dora", "lora_bias", "use_qalora", "fan_in_fan_out", "use_rslora")
_MORE = (
    "use_dora",
    "lora_bias",
    "use_qalora",
    "fan_in_fan_out",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
"""Keys that, set, make an adapter more than a low-rank update of the weights that the base has."""

_NEUTRAL = frozenset(
    {"alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying"}
    | {"eva_config", "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform"}
    | {"loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core"}
    | {"peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config"}
    | {"target_modules", "task_type", "use_rslora", "velora_config"}
)

_MATCHES = Confined("polysafe.checkpoint.patterns:first_matches", "a regular expression", seconds=10)
_MERGE = "merge it into its base model first (PEFT: `merge_and_unload()`)"


@dataclass(frozen=True)
class AdapterConfig:
    """The config of an adapter that is a plain low-rank update.

    Attributes:
        path: The file.
        rank: Rank of most updates.
        alpha: Their α.
        stabilised: Whether the scale is α/√r instead of α/r.
        ranks: Expression -> rank of the modules that it matches.
        alphas: The same for α.
        notes: What is odd but harmless.
    """

    path: Path
    rank: int
    alpha: float
    stabilised: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def scales(self, found: Mapping[str, int]) -> dict[str, float]:
        """The scale s of every update.

        Args:
            found: Tensor -> rank of its factors.

        Raises:
            CheckpointError: An expression is none, or takes too long.
            MismatchError: Factors have another rank than the config says.
        """
        modules = {tensor: tensor.removesuffix(".weight") for tensor in found}
        ranks, alphas = self._of(self.ranks, modules.values()), self._of(self.alphas, modules.values())
        return {
            tensor: self._scale(tensor, found[tensor], ranks.get(module, self.rank), alphas.get(module, self.alpha))
            for tensor, module in modules.items()
        }

    def _scale(self, tensor: str, found: int, rank: int, alpha: float) -> float:
        if found != rank:
            raise MismatchError(
                f"states rank {rank} for {tensor!r}, whose factors have rank {found}: its scale is unclear",
                where=self.path,
                remedy="config and weights belong to different adapters; fetch both again",
            )
        return alpha / (math.sqrt(rank) if self.stabilised else rank)

    def _of(self, values: Mapping[str, Any], modules: Iterable[str]) -> dict[str, Any]:
        """Module -> the value whose expression matches it first."""
        if not values:
            return {}
        names, patterns = list(modules), list(values)
        places = _MATCHES({"patterns": patterns, "names": names})
        if isinstance(places, str):
            raise _unusable(self.path, f"an expression is none: {places}")
        return {name: values[patterns[place]] for name, place in zip(names, places, strict=True) if place is not None}


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Reads the config of an adapter folder.

    Raises:
        CheckpointError: It is missing or damaged, or the adapter is of a kind that is no plain LoRA.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError("is missing", where=path, remedy="an adapter folder needs its adapter_config.json")
    config = read_small_json(folder, CONFIG, MAX_CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError("does not describe a LoRA adapter", where=path)
    _check_plain(config, path)
    strange = sorted(key for key, value in config.items() if value and key not in _NEUTRAL)
    return AdapterConfig(
        path,
        rank=_rank(config.get("r"), path),
        alpha=_alpha(config.get("lora_alpha"), path),
        stabilised=config.get("use_rslora") is True,
        ranks={pattern: _rank(value, path) for pattern, value in _pattern(config, "rank_pattern", path)},
        alphas={pattern: _alpha(value, path) for pattern, value in _pattern(config, "alpha_pattern", path)},
        notes=(f"{CONFIG} sets {', '.join(strange)}, of which polysafe knows nothing",) if strange else (),
    )


def _check_plain(config: Mapping[str, Any], path: Path) -> None:
    for key in _SWITCHES:
        if config.get(key) not in (None, True, False) or type(config.get(key)) in (int, float):
            raise CheckpointError(f"says {key}: {config[key]!r:.40}, neither true nor false", where=path)
    more = [key for key in _MORE if config.get(key)]
    if config.get("bias", "none") != "none":
        more.append("bias")
    if more:
        raise CheckpointError(
            f"describes an adapter that is more than a low-rank update ({', '.join(more)})", where=path, remedy=_MERGE
        )
    start = config.get("init_lora_weights")
    if start is not None and type(start) is not bool and start not in _STARTS:
        raise CheckpointError(
            f"was begun with {start!r:.40}, which changes the base model too: on the plain base it is another model",
            where=path,
            remedy=f"convert it to plain LoRA (PEFT: `path_initial_model_for_weight_conversion`), or {_MERGE}",
        )


def _rank(value: object, path: Path) -> int:
    if type(value) is not int or value < 1:
        raise _unusable(path, f"rank {value!r:.40}")
    return value


def _alpha(value: object, path: Path) -> float:
    if type(value) not in (int, float) or not -1e300 < value < 1e300:  # type: ignore[operator]
        raise _unusable(path, f"alpha {value!r:.40}")
    return float(value)  # type: ignore[arg-type]


def _pattern(config: Mapping[str, Any], key: str, path: Path) -> Iterable[tuple[str, object]]:
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict):
        raise _unusable(path, f"{key} is no map")
    return pattern.items()


def _unusable(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"states no usable scale of the update: {problem}", where=path)
