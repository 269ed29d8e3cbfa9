"""What is done with a tiny model of every architecture, a function a column of the table; each checks its results.

A function returns what polysafe said of it, raises what polysafe refused it with, and fails an assertion where the
result is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from polysafe.checkpoint.opened import Sources, open_source
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.verify import verify_output
from polysafe.data.openings import Openings
from polysafe.data.prompts import Prompt
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.export import export_adapter
from polysafe.edits.operations import AddDelta
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.probe.continuations import Continuations
from polysafe.probe.forward import first_tensor
from polysafe.probe.model import LoadedModel, Site, edited, load_model
from polysafe.probe.refusal import RefusalSignal
from polysafe.probe.render import load_tokenizer
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.apply import load_edit, undo_edit
from polysafe.workflows.run import run_recipe
from tests.architectures.families import Family
from tests.architectures.made import SIZES, Made, State, matrix_modules, read_state
from tests.methods.anchors import write_anchors
from tests.methods.helpers import differing, result, same_bits

TRIO = {"base": "base", "safety": "safety", "language": "sw"}
PROMPTS = ("w9 w12 w5", "w30", "w8 w8 w21 w33 w40 w3 w17")
BEGINNING = "w1 w2 w3 w4 w5 w6 w7 "
"""What prompts that are asked together begin with, of 21 tokens: enough to be run once for all of them."""


@dataclass
class Bench:
    """One family: its models, opened and loaded once for all columns."""

    made: Made
    folder: Path
    stack: ExitStack
    family: Family

    @cached_property
    def sources(self) -> Sources:
        """All three."""
        return {
            name: self.stack.enter_context(open_source(folder, name=name)) for name, folder in self.made.folders.items()
        }

    @cached_property
    def loaded(self) -> LoadedModel:
        """The base."""
        return load_model(self.sources["base"])

    @cached_property
    def anchors(self) -> dict[str, Any]:
        """Anchors of three languages."""
        return write_anchors(self.folder / "anchors", harmful=8, harmless=12)

    @cached_property
    def tasks(self) -> dict[str, Any]:
        """An in-context task."""
        path = self.folder / "task.json"
        pairs = [{"input": f"w{3 + n}", "output": f"w{30 + n % 4}"} for n in range(24)]
        path.write_text(json.dumps(pairs), encoding="utf-8")
        return {"files": [{"name": "pairs", "language": "sw", "path": str(path)}], "names": ["pairs"]}


def layer_wise(bench: Bench) -> tuple[str, ...]:
    """Whole layers are those of one expert, norms and all."""
    return _swapped(bench, "layer")


def module_wise(bench: Bench) -> tuple[str, ...]:
    """The halves of every layer are those of one expert each, by turns."""
    return _swapped(bench, "module")


def _swapped(bench: Bench, granularity: str) -> tuple[str, ...]:
    method = LayerSwap.model_validate({**TRIO, "granularity": granularity, "tau": 0.0, "outside": "language"})
    edit = method.fit(bench.sources)
    new, states = result(edit, bench.sources), bench.made.states
    unlike = set(differing(states["safety"], states["sw"]))
    assert set(differing(new, states["sw"])) == set(edit.touched) & unlike
    taken = {}
    for block in bench.made.blocks:
        safe = {name: same_bits(new[name], states["safety"][name]) for name in block.matrices}
        kept = {name: same_bits(new[name], states["sw"][name]) for name in block.matrices}
        assert all(safe[name] != kept[name] for name in block.matrices)
        assert len(set(safe.values())) == 1, f"a part of layer {block.layer} was left behind: {safe}"
        taken[block.layer, block.mixes] = next(iter(safe.values()))
    if granularity == "module":
        assert taken == {(layer, mixes): (layer + mixes) % 2 == 1 for layer, mixes in taken}
    else:
        assert all(taken[layer, mixes] == taken.get((layer, True), taken[layer, mixes]) for layer, mixes in taken)
        assert len(set(taken.values())) == 2
    return ()


def sparse(bench: Bench) -> tuple[str, ...]:
    """The named units of one MLP respond otherwise, everything else is the same bytes."""
    method = SparseEdit.model_validate(
        {
            "model": "base",
            "languages": ["aa", "bb"],
            "anchors": bench.anchors,
            "layers": [len(bench.made.layers[1]) - 1 if bench.family.layer is None else bench.family.layer],
            "template": "raw",
            "tau_mag": 0.7,
            "tau_stat": 0.3,
            "cap": 0.2,
            "rank": 4,
        }
    )
    edit = method.fit(bench.sources)
    new, old = result(edit, bench.sources), bench.made.states["base"]
    said = edit.provenance[0].evidence
    (layer,) = said["chosen"]["layers"]
    parts = said["layers"][str(layer)]["projections"].values()
    assert differing(new, old) == sorted({part["tensor"] for part in parts})
    closed = said["layers"][str(layer)]["gap_closed"].values()
    assert all(each["anchors"] > 0 for each in closed)
    name, _ = bench.loaded.module(layer, Site.MLP)
    with _seen(bench.loaded.model.get_submodule(name)) as before:
        _ask(bench.loaded)
    with edited(bench.loaded, edit, _readers(bench)) as model, _seen(model.model.get_submodule(name)) as after:
        _ask(model)
    assert torch.equal(before.inputs, after.inputs)
    assert not torch.equal(before.outputs, after.outputs)
    return _caveats(edit, "that can be edited", "a mixture")


def steering(bench: Bench) -> tuple[str, ...]:
    """The effects of all heads are measured, and of the chosen ones alone the output changes."""
    method = HeadSteering.model_validate(
        {
            "model": "base",
            "harmful": "sw",
            "languages": ["sw"],
            "tasks": bench.tasks,
            "prompts": 2,
            "shots": 3,
            "fraction": 0.5,
        }
    )
    edit = method.fit(bench.sources)
    new, states = result(edit, bench.sources), bench.made.states
    heads = {tuple(head) for head in edit.provenance[0].evidence["heads"]}
    layers = range(len(bench.made.layers[1]))
    touched = set(edit.touched)
    assert set(differing(new, states["base"])) == touched
    outputs = {layer: bench.loaded.module(layer, Site.HEADS) for layer in layers if _has_heads(bench, layer)}
    count, size = bench.family.heads
    assert len(heads) == len(outputs) * count // 2
    for layer, (name, module) in outputs.items():
        steered = {head for at, head in heads if at == layer}
        weight, target = _weight(bench, new, name), _weight(bench, states["sw"], name)
        stored = _weight(bench, states["base"], name)
        assert weight.shape[1] == count * size
        for head in range(count):
            part = slice(head * size, (head + 1) * size)
            wanted = stored - (target - stored) if head in steered else stored
            torch.testing.assert_close(weight[:, part], wanted[:, part], rtol=1e-6, atol=1e-6)
            assert torch.equal(weight[:, part], stored[:, part]) == (head not in steered)
        _check_heads(bench, layer, module)
    return _caveats(edit, "takes longer", "have attention heads")


def undone(bench: Bench) -> tuple[str, ...]:
    """A recipe is carried out, verified, and taken back bit for bit."""
    output = bench.folder / "edited"
    sources = {name: {"path": str(folder)} for name, folder in bench.made.folders.items()}
    entry = {"method": "layer_swap", **TRIO, "granularity": "layer"}
    run_recipe(
        make_recipe({"polysafe": 1, "sources": sources, "edits": [entry], "output": {"path": str(output)}}),
        progress=_silent,
    )
    assert verify_output(output).ok
    assert differing(read_state(output), bench.made.states["sw"])
    edit = load_edit(output / "polysafe")
    back = undo_edit(edit, output, bench.made.folders["sw"], bench.folder / "back", progress=_silent).output
    assert not differing(read_state(back), bench.made.states["sw"])
    return ()


def exported(bench: Bench) -> tuple[str, ...]:
    """A LoRA adapter on every projection, put on by PEFT, gives the logits of the edited model."""
    from peft import PeftModel

    roles = bench.sources["base"].architecture.roles
    steps = {
        name: (AddDelta(of="sw", minus="base", scale=0.5),)
        for name, role in roles.items()
        if role.projection is not None and not role.bias
    }
    folders = {name: bench.made.folders[name] for name in ("base", "sw")}
    origins = {name: SourceRecord(origin=name) for name in folders}
    edit = Edit(start="base", steps=steps, sources=origins)
    checkpoints = {name: open_checkpoint(folder) for name, folder in folders.items()}
    export = export_adapter(edit, checkpoints, bench.folder / "adapter", rank=64, partial=True)
    left = {part.tensor for part in export.left_out}
    whole = Edit(start="base", steps={name: ops for name, ops in steps.items() if name not in left}, sources=origins)
    with edited(bench.loaded, whole, _readers(bench)) as model:
        wanted = _ask(model)
    assert not torch.allclose(_ask(bench.loaded), wanted, atol=1e-3)
    anew: Any = type(bench.made.model).from_pretrained(bench.made.folders["base"])
    PeftModel.from_pretrained(anew, export.output)
    torch.testing.assert_close(_ask(anew.eval()), wanted, rtol=1e-4, atol=1e-4)
    return tuple(sorted({part.reason for part in export.left_out}))


def generated(bench: Bench) -> tuple[str, ...]:
    """Answers and refusal log-odds of a batch are those that the model before it was saved gives a prompt at a time."""
    torch.testing.assert_close(_ask(bench.loaded), _ask(bench.made.model))
    assert bench.loaded.max_tokens in {None, SIZES["max_position_embeddings"]}
    tokenizer = load_tokenizer(bench.made.folders["base"])
    generator = LocalGenerator(bench.loaded, tokenizer, Sampling(max_tokens=4), template="raw")
    longer = [BEGINNING + text for text in PROMPTS]
    asked = [[Ask(text, text) for text in texts] for texts in (PROMPTS, longer)]
    answers = {each.id: each.token_ids for asks in asked for each in generator.generate(asks)}
    for text in (*PROMPTS, *longer):
        wanted = _greedy(bench.loaded, tokenizer(text)["input_ids"], 4)
        ends = next((place for place, token in enumerate(wanted) if token in generator.identity["ends"]), None)
        assert answers[text] == tuple(wanted[:ends]), text
    openings = Openings("en", (" w9 w10", " w11"), (" w12 w13",), "these tests")
    signal = RefusalSignal(Continuations(bench.loaded, tokenizer, template="raw"), known=lambda _: openings)
    odds = {each.id: each.log_odds for each in signal.measure([_prompt(text) for text in PROMPTS])}
    assert len(odds) == len(PROMPTS)
    for text in PROMPTS:
        means = [_mean(bench.loaded, tokenizer, text, opening) for opening in (*openings.refusal, *openings.compliance)]
        likelihood = torch.logsumexp(torch.stack(means[:2]), 0) - torch.log(torch.tensor(2.0)) - means[2]
        assert abs(odds[_prompt(text).id] - float(likelihood)) < 1e-3
    return ()


COLUMNS: dict[str, Callable[[Bench], tuple[str, ...]]] = {
    "swap": layer_wise,
    "module swap": module_wise,
    "sparse edit": sparse,
    "head steering": steering,
    "apply, undo": undone,
    "PEFT export": exported,
    "generation, audit": generated,
}


def _caveats(edit: Edit, *parts: str) -> tuple[str, ...]:
    """What was said of an edit that does not hold for every model."""
    return tuple(note for note in edit.provenance[0].notes if any(part in note for part in parts))


@dataclass
class _Seen:
    inputs: torch.Tensor
    outputs: torch.Tensor


@contextmanager
def _seen(module: torch.nn.Module) -> Iterator[_Seen]:
    seen = _Seen(torch.empty(0), torch.empty(0))

    def hook(_module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.inputs, seen.outputs = first_tensor((args, kwargs)).clone(), first_tensor(output).clone()

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _ask(model: LoadedModel | PreTrainedModel) -> torch.Tensor:
    live: Any = model.model if isinstance(model, LoadedModel) else model
    inner = getattr(live, "language_model", None)  # Llama 4, whose wrapper cannot be run on texts alone
    live = live if getattr(inner, "lm_head", None) is None else inner
    with torch.no_grad():
        logits: torch.Tensor = live(input_ids=torch.tensor([[1, 5, 9, 22, 40]]), use_cache=False).logits
    return logits


def _readers(bench: Bench) -> Mapping[str, Any]:
    return {name: source.reader for name, source in bench.sources.items()}


def _has_heads(bench: Bench, layer: int) -> bool:
    children = bench.made.layers[1][layer].children()
    return any(
        re.search("(?<!Linear)(Attention|Attn)", type(m).__name__) for child in children for m in child.modules()
    )


def _weight(bench: Bench, state: State, module: str) -> torch.Tensor:
    """The matrix of a module as output × input, by the class of the module; found in the files by its values."""
    live = matrix_modules(bench.loaded.model)[module]
    values: Any = live.weight
    (name,) = [
        name
        for name, stored in bench.made.states["base"].items()
        if stored.shape == values.shape and torch.equal(stored, values)
    ]
    return state[name] if isinstance(live, torch.nn.Linear) else state[name].T


def _check_heads(bench: Bench, layer: int, projection: torch.nn.Module) -> None:
    """What a head says lies in its block of the projection's input, where attention is transformers' own function."""
    inside = bench.loaded.model.get_submodule(f"{bench.loaded.parameters.prefix}.{layer}")
    ours = {id(module) for module in inside.modules()}
    own = ALL_ATTENTION_FUNCTIONS["sdpa"]
    muted: list[int] = []

    def attend(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        found, weights = own(module, *args, **kwargs)
        if id(module) in ours and muted:
            found = found.clone()
            found[:, :, muted[0]] = 0
        return found, weights

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend
    try:
        with _seen(projection) as whole:
            _ask(bench.loaded)
        before = whole.inputs
        count, size = bench.family.heads
        for head in range(count):
            muted[:] = [head]
            with _seen(projection) as seen:
                _ask(bench.loaded)
            part = slice(head * size, (head + 1) * size)
            if torch.equal(seen.inputs, before):  # attention of its own
                return
            seen.inputs[..., part] = before[..., part]
            torch.testing.assert_close(seen.inputs, before)
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = own


def _greedy(model: LoadedModel, tokens: list[int], count: int) -> list[int]:
    for _ in range(count):
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
        tokens = [*tokens, int(logits[0, -1].argmax())]
    return tokens[len(tokens) - count :]


def _mean(model: LoadedModel, tokenizer: Any, text: str, answer: str) -> torch.Tensor:
    prompt, more = tokenizer(text)["input_ids"], tokenizer(answer)["input_ids"]
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([[*prompt, *more]]), use_cache=False).logits[0].float()
    chosen = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(more)[:, None])
    found: torch.Tensor = chosen.mean()
    return found


def _prompt(text: str) -> Prompt:
    return Prompt("harmful", text, "en", text, "harmful")


def _silent(*_: Any, **__: Any) -> None: ...
