"""Forward passes that leave one row per prompt and layer, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch

from polysafe.errors import ArchitectureError, DataError, ResourceError
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Batch, RenderedPrompts, Side
from polysafe.probe.residual import Residuals

Pooling = Literal["last", "mean"]
Pool = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From activations [prompts, tokens, width] and the mask [prompts, tokens] to rows [prompts, width]."""


def last_token(activations: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The activation of the last token of every prompt, wherever its padding is."""
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return _wide(activations[torch.arange(len(mask), device=mask.device), last])


def mean_token(activations: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over all tokens of every prompt, that of the beginning of the sequence included."""
    kept = torch.where(mask.bool().unsqueeze(-1), activations, 0)
    total = kept.sum(1, dtype=torch.promote_types(activations.dtype, torch.float32))
    return total / mask.sum(1, keepdim=True)


POOLINGS: Mapping[Pooling, Pool] = {"last": last_token, "mean": mean_token}


class Recorder:
    """Runs batches and returns the pooled input of some modules.

    The pass ends as soon as every module was reached: layers above and the output head cost nothing. Hooks are on the
    model between `__enter__` and `__exit__` only.

    Args:
        model: The model.
        places: Layer -> name of the module whose first input is recorded.
        pooling: How the tokens of a prompt become one row.
        side: Where padding goes.
        after: Where passes go on from, of batches that it has. The model may differ from the one that it was kept of
            in this layer and above.
        keep: Empty; is given what enters its layer.
    """

    def __init__(
        self,
        model: LoadedModel,
        places: Mapping[int, str],
        pooling: Pooling,
        side: Side = "left",
        *,
        after: Residuals | None = None,
        keep: Residuals | None = None,
    ) -> None:
        self._model = model
        self._places = places
        self._pool = POOLINGS[pooling]
        self._side = side
        self._after, self._keep = after, keep
        self._hooks = ExitStack()
        self._pass: _Pass | None = None
        self._body = model.model.base_model
        self._takes_positions = "position_ids" in inspect.signature(self._body.forward).parameters
        # a pass that is cut short leaves the weights of an offloaded module on the device
        self._stops = all(parameter.device.type != "meta" for parameter in model.model.parameters())

    def __enter__(self) -> Self:
        for layer, name in self._places.items():
            module = self._model.model.get_submodule(name)
            handle = module.register_forward_pre_hook(self._hook(layer), with_kwargs=True)
            self._hooks.callback(handle.remove)
        layers: Any = self._model.model.get_submodule(self._model.parameters.prefix)
        if self._after is not None and self._stops:
            self._hooks.enter_context(self._after.going_on(layers, self._start))
        if self._keep is not None:
            self._hooks.enter_context(self._keep.kept(layers, lambda: None if self._pass is None else self._pass.name))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def rows(self, prompts: RenderedPrompts, indices: Sequence[int]) -> dict[int, torch.Tensor]:
        """Pooled activations of some prompts: layer -> [prompts, width] on the processor, float32 or wider.

        Raises:
            DataError: An activation is NaN or infinite; the message names prompt, layer and module.
            ResourceError: The batch does not fit the device.
        """
        batch = prompts.batch(indices, self._side)
        name = (prompts.sha256, self._side, *indices)
        start = self._after.of(name) if self._after is not None and self._stops else None
        found = self._pooled(_Pass(batch, name, start))
        if start is not None and self._after is not None and not self._after.checked:
            whole = self._pooled(_Pass(batch, name))
            self._after.checked = all(found[layer].equal(rows) for layer, rows in whole.items())
            if not self._after.checked:
                self._after.forget()
                found = whole
        for layer in self._places:
            self._check_finite(found[layer], prompts, indices, layer)
        return found

    def _start(self) -> torch.Tensor | None:
        return None if self._pass is None else self._pass.start

    def _pooled(self, run: _Pass) -> dict[int, torch.Tensor]:
        self._pass = run
        try:
            self._run(run.batch.to(self._model.device))
            found = {layer: rows.cpu() for layer, rows in run.pooled.items()}
        finally:
            self._pass = None
        for layer, name in self._places.items():
            if layer not in found:
                raise ArchitectureError(f"the forward pass did not reach {name}", where=self._model.source.name)
        return found

    def _run(self, batch: Batch) -> None:
        positions = {"position_ids": batch.position_ids} if self._takes_positions else {}
        try:
            with torch.no_grad():
                self._body(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **positions)
        except _Reached:
            return
        except torch.OutOfMemoryError as error:
            rows, length = batch.input_ids.shape
            raise ResourceError(
                f"a batch of {rows} prompts of up to {length} tokens does not fit the device: {error}",
                remedy="use a smaller batch_size",
            ) from error

    def _hook(self, layer: int) -> Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            current = self._pass
            if current is None:  # someone else runs the model
                return
            mask = current.mask(first_tensor((args, kwargs)).device)
            activations = _per_token(first_tensor((args, kwargs)), mask)
            current.pooled[layer] = self._pool(activations, mask)
            if self._stops and len(current.pooled) == len(self._places):
                raise _Reached

        return record

    def _check_finite(self, rows: torch.Tensor, prompts: RenderedPrompts, indices: Sequence[int], layer: int) -> None:
        finite = rows.isfinite().all(1)
        if not finite.all():
            prompt = prompts.ids[indices[int(finite.int().argmin())]]
            raise DataError(
                f"the input of {self._places[layer]} (layer {layer}) is NaN or infinite",
                where=f"prompt {prompt!r}",
                remedy="load the model in a wider type (float32), or check its weights",
            )


class _Reached(BaseException):
    """Everything wanted was recorded. Not an `Exception`, so that nothing between hook and caller handles it."""


@dataclass
class _Pass:
    """One forward pass.

    Attributes:
        batch: Its batch.
        name: What names the batch, among all that are run through the model.
        start: States that it goes on with, None for a whole pass.
        pooled: What was recorded, by layer.
        masks: The mask on every device that needed it.
    """

    batch: Batch
    name: object
    start: torch.Tensor | None = None
    pooled: dict[int, torch.Tensor] = field(default_factory=dict)
    masks: dict[torch.device, torch.Tensor] = field(default_factory=dict)

    def mask(self, device: torch.device) -> torch.Tensor:
        if device not in self.masks:
            self.masks[device] = self.batch.attention_mask.to(device)
        return self.masks[device]


def first_tensor(value: object) -> torch.Tensor:
    """The first tensor in what a module takes or returns: a tensor, or tuples, lists and mappings of them.

    Raises:
        ArchitectureError: There is none.
    """
    found = _first(value)
    if found is None:
        raise ArchitectureError("a module takes or returns no tensor")
    return found


def _first(value: object) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
    return next((found for found in map(_first, members) if found is not None), None)


def _per_token(activations: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Activations as [prompts, tokens, width]; expert blocks flatten the first two axes."""
    if activations.ndim == 2 and activations.shape[0] == mask.numel():
        return activations.view(*mask.shape, -1)
    if activations.shape[:-1] != mask.shape:
        raise ArchitectureError(
            f"activations of shape {list(activations.shape)} are not one row per token of a batch {list(mask.shape)}"
        )
    return activations


def _wide(rows: torch.Tensor) -> torch.Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
