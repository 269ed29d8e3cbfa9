"""All runs that differ at the last prompt position, in one pass: the triangular form of activation patching.

A *row* is the residual stream of one run at the last prompt position, and at the answer tokens that follow it. Row 0 is
the run without a patch; a row is born in each layer for each head, and differs from row 0 from there on. Earlier
positions cannot see the patch, so their keys and values are computed once and shared by all rows; a layer that has H
heads and comes l-th works on 1 + H·(l + 1) rows of one token each, instead of on that many prompts.

The model's own code does the work: its forward pass runs on one short sequence whose hidden states are multiplied into
rows on the way. Only attention is ours, because the rows attend to a prefix that they share and to themselves:

    one softmax over the scores of both, in float32; keys and values are never put together

Whether an architecture does what is assumed here is not told from its name:
`effects` compares a few runs with the model as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch.nn import functional

from polysafe.errors import ArchitectureError
from polysafe.probe.forward import first_tensor
from polysafe.probe.model import LoadedModel, Site

ATTENTION = "polysafe_rows"
_SCORES = 1 << 25
"""Most attention scores that are held at once."""


@dataclass
class _Pass:
    """One forward pass: over the prefix, whose keys and values are kept, or over rows.

    Attributes:
        prefix: Number of tokens of the prefix.
        rows: Whether this is the pass over rows.
        keys: Layer -> keys of the prefix, [kv heads, prefix, size].
        values: Layer -> values of the prefix, the same shape.
        reached: Layers whose attention was ours.
    """

    prefix: int
    rows: bool = False
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)


class RowPass:
    """Runs rows through a model whose attention it replaces between `__enter__` and `__exit__`.

    Args:
        model: The model.
        patches: What replaces the output of a head, float [layers, heads, head size]; a row is born for each.

    Raises:
        ArchitectureError: The head layout is not stated, layers have no heads, or the model does not let its attention
            be replaced.
    """

    def __init__(self, model: LoadedModel, patches: torch.Tensor) -> None:
        layout = model.architecture.heads
        if layout is None:
            raise ArchitectureError("the config states no attention heads", where=model.source.name)
        if len(model.parameters.with_heads) < model.parameters.num_layers:
            raise ArchitectureError("some layers mix tokens without attention heads", where=model.source.name)
        self._model = model
        self._body = model.model.base_model
        self._heads, self._size = layout.num_heads, layout.head_dim
        self._patches = patches
        self._cleanup = ExitStack()
        self._pass: _Pass | None = None
        self._layer_of: dict[int, int] = {}
        self._takes_positions = "position_ids" in inspect.signature(self._body.forward).parameters

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for layer in range(self._model.parameters.num_layers):
                self._hook(layer, stack)
            stack.enter_context(_attention(self._model, self._attend))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def states(self, prompt: Sequence[int], fed: Sequence[int]) -> torch.Tensor:
        """Last hidden states of all rows, [1 + layers·heads, 1 + fed, width].

        Args:
            prompt: Token ids of the prompt; the patch is at the last of them.
            fed: Token ids of the answer that are read after it.

        Raises:
            ArchitectureError: The model did not ask for attention in every layer.
        """
        prefix, tail = list(prompt[:-1]), [prompt[-1], *fed]
        self._pass = _Pass(len(prefix))
        try:
            if prefix:
                self._run(prefix, 0)
            self._pass.rows = True
            self._pass.reached.clear()
            states = self._run(tail, len(prefix))
            missed = self._model.parameters.num_layers - len(self._pass.reached)
        finally:
            self._pass = None
        if missed:
            raise ArchitectureError(f"{missed} layers have an attention of their own", where=self._model.source.name)
        return states

    def _run(self, tokens: list[int], start: int) -> torch.Tensor:
        device = self._model.device
        positions = torch.arange(start, start + len(tokens), device=device)[None]
        given = {"position_ids": positions} if self._takes_positions else {}
        with torch.no_grad():
            out = self._body(input_ids=torch.tensor([tokens], device=device), use_cache=False, **given)
        return first_tensor(out)

    def _hook(self, layer: int, stack: ExitStack) -> None:
        block = self._model.model.get_submodule(f"{self._model.parameters.prefix}.{layer}")
        _, projection = self._model.module(layer, Site.HEADS)
        stack.callback(block.register_forward_pre_hook(self._multiply, with_kwargs=True).remove)
        stack.callback(projection.register_forward_pre_hook(self._patch(layer), with_kwargs=True).remove)
        for module in block.modules():
            self._layer_of[id(module)] = layer

    def _multiply(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A copy of row 0 for each head of the layer, behind the rows that are there."""
        if self._pass is None or not self._pass.rows:
            return None

        def multiplied(states: torch.Tensor) -> torch.Tensor:
            return torch.cat((states, states[:1].expand(self._heads, -1, -1)))

        if args:
            return (multiplied(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": multiplied(kwargs["hidden_states"])}

    def _patch(self, layer: int) -> Any:
        def hook(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._pass is None or not self._pass.rows:
                return None
            outputs = first_tensor((args, kwargs))
            patched = outputs.reshape(*outputs.shape[:2], self._heads, self._size).clone()
            heads = torch.arange(self._heads, device=outputs.device)
            patched[heads + len(patched) - self._heads, 0, heads] = self._patches[layer].to(patched)
            return (patched.view(outputs.shape), *args[1:]), kwargs

        return hook

    def _attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        _mask: torch.Tensor | None = None,
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **_: object,
    ) -> tuple[torch.Tensor, None]:
        """Attention as transformers calls it: [rows, heads, tokens, size] in, [rows, tokens, heads, size] out."""
        now, layer = self._pass, self._layer_of.get(id(module))
        if now is None or layer is None:
            raise ArchitectureError("attention outside the decoder layers", where=self._model.source.name)
        scores = Scores(scaling or query.shape[-1] ** -0.5, softcap, sliding_window, s_aux)
        now.reached.add(layer)
        if not now.rows:
            now.keys[layer], now.values[layer] = key[0], value[0]
            found = causal(query, key, value, scores)
        else:
            shared = (now.keys.get(layer, key[0, :, :0]), now.values.get(layer, value[0, :, :0]))
            found = attend_rows(query, key, value, *shared, scores)
        return found.transpose(1, 2), None


@dataclass(frozen=True)
class Scores:
    """How attention scores are made of products.

    Attributes:
        scale: Factor on the products.
        cap: s ↦ cap·tanh(s / cap) before the exponentials, as in Gemma 2; None for none.
        window: Number of positions that a query sees, its own among them; None for all.
        sinks: A score per head that takes part in the sum of exponentials only; None for none.
    """

    scale: float
    cap: float | None = None
    window: int | None = None
    sinks: torch.Tensor | None = None

    def of(self, products: torch.Tensor) -> torch.Tensor:
        """Scores in float32."""
        scores = products.to(torch.promote_types(products.dtype, torch.float32)) * self.scale
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def hidden(self, queries: int, keys: int, first_query: int, device: torch.device) -> torch.Tensor:
        """Which keys a query does not see, bool [queries, keys]; keys stand at positions 0 … keys − 1."""
        position = torch.arange(first_query, first_query + queries, device=device)[:, None]
        key = torch.arange(keys, device=device)[None]
        future = key > position
        return future if self.window is None else future | (key <= position - self.window)


def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> torch.Tensor:
    """Causal attention of one sequence, all of [1, heads, tokens, size]."""
    tokens = query.shape[2]
    if scores.cap is None and scores.sinks is None:
        seen = None if scores.window is None else ~scores.hidden(tokens, tokens, 0, query.device)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, scale=scores.scale, enable_gqa=True
        )
    empty = key[0, :, :0]
    return attend_rows(query, key, value, empty, empty, scores)


def attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefix_keys: torch.Tensor,
    prefix_values: torch.Tensor,
    scores: Scores,
) -> torch.Tensor:
    """Attention of rows to a prefix that all share and to their own tokens, which stand behind it.

    Args:
        query: [rows, heads, tokens, size].
        key: [rows, kv heads, tokens, size]; head h reads kv head h // (heads / kv heads).
        value: [rows, kv heads, tokens, value size].
        prefix_keys: [kv heads, prefix, size].
        prefix_values: [kv heads, prefix, value size].
        scores: How scores are made.

    Returns:
        [rows, heads, tokens, value size] in the type of `value`.
    """
    rows, heads, tokens, _ = query.shape
    step = max(1, _SCORES // max(1, heads * tokens * (prefix_keys.shape[1] + tokens)))
    parts = [
        _attend_rows(query[i : i + step], key[i : i + step], value[i : i + step], prefix_keys, prefix_values, scores)
        for i in range(0, rows, step)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    prefix_keys: torch.Tensor,
    prefix_values: torch.Tensor,
    scores: Scores,
) -> torch.Tensor:
    rows, heads, tokens, size = query.shape
    kv_heads, prefix = prefix_keys.shape[:2]
    group = heads // kv_heads
    grouped = query.reshape(rows, kv_heads, group, tokens, size)
    # one product per kv head: the queries of all rows against the keys that they share
    flat = grouped.transpose(0, 1).reshape(kv_heads, -1, size)
    shared = scores.of(flat @ prefix_keys.mT).view(kv_heads, rows, group, tokens, prefix).transpose(0, 1)
    own = scores.of(grouped @ key[:, :, None].mT)
    hidden = scores.hidden(tokens, prefix + tokens, prefix, query.device)
    joint = torch.cat((shared, own), -1).masked_fill_(hidden, -torch.inf)
    weights = _softmax(joint, scores.sinks, kv_heads).to(value.dtype)
    near = weights[..., prefix:] @ value[:, :, None]
    if not prefix:
        return near.reshape(rows, heads, tokens, -1)
    far = weights[..., :prefix].transpose(0, 1).reshape(kv_heads, -1, prefix) @ prefix_values
    far = far.view(kv_heads, rows, group, tokens, -1).transpose(0, 1)
    return (far + near).reshape(rows, heads, tokens, -1)


def _softmax(joint: torch.Tensor, sinks: torch.Tensor | None, kv_heads: int) -> torch.Tensor:
    """Softmax over the last axis, [rows, kv heads, group, tokens, keys], with a sink in the sum where there is one."""
    if sinks is None:
        return joint.softmax(-1)
    sink = sinks.to(joint.dtype).view(1, kv_heads, -1, 1, 1).expand(*joint.shape[:-1], 1)
    return torch.cat((joint, sink), -1).softmax(-1)[..., :-1]


@contextmanager
def _attention(model: LoadedModel, function: Any) -> Iterator[None]:
    """Lets `function` compute the attention of a model, without masks: every mask is known here."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    configs: dict[int, Any] = {id(m.config): m.config for m in model.model.modules() if hasattr(m, "config")}
    before = {name: config._attn_implementation for name, config in configs.items()}
    ALL_ATTENTION_FUNCTIONS[ATTENTION] = function
    try:
        for config in configs.values():
            config._attn_implementation = ATTENTION
        yield
    finally:
        for name, config in configs.items():
            config._attn_implementation = before[name]
        del ALL_ATTENTION_FUNCTIONS[ATTENTION]


class OutputHead:
    """From last hidden states to logits, by the model's own code.

    What a model does behind its last norm (a bias, scaling, capping) is not repeated here: for the time of a call its
    body is replaced by one that returns the states it is given.

    Args:
        model: The model.

    Raises:
        ArchitectureError: Its body returns no last hidden state.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._whole, self._body = model.model, model.model.base_model
        self._ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        with torch.no_grad():
            self._output = self._body(input_ids=self._ids, use_cache=False)
        if "last_hidden_state" not in self._output:
            raise ArchitectureError("its body returns no last hidden state", where=model.source.name)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of states [rows, tokens, width], [rows, tokens, vocabulary]."""
        original = self._body.__dict__.get("forward")
        self._output["last_hidden_state"] = states
        self._body.forward = lambda *_, **__: self._output
        try:
            with torch.no_grad():
                return first_tensor(self._whole(input_ids=self._ids, use_cache=False).logits)
        finally:
            if original is None:
                del self._body.forward
            else:
                self._body.forward = original
