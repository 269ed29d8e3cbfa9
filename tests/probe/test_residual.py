"""Passes that go on from what entered a layer give what whole passes give, and run nothing below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from polysafe.probe.capture import capture
from polysafe.probe.model import LoadedModel, Site
from polysafe.probe.residual import Residuals
from polysafe.probe.stores import Rows
from tests.models import FAMILIES
from tests.probe.helpers import prompts

Loader = Callable[[str], LoadedModel]


@contextmanager
def _changed(model: LoadedModel, layer: int) -> Iterator[None]:
    """The model with other weights in a layer."""
    _, module = model.module(layer, Site.HEADS)
    weight: Any = module.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(-2.0)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


@contextmanager
def _counted(model: LoadedModel) -> Iterator[list[int]]:
    """Layers in the order in which their attention ran."""
    ran: list[int] = []
    handles = [
        model.module(layer, Site.HEADS)[1].register_forward_hook(lambda *_, n=layer: ran.append(n))
        for layer in range(4)
    ]
    yield ran
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_going_on_gives_the_rows_of_whole_passes_and_runs_nothing_below(loaded: Loader, family: str) -> None:
    model, rendered, entered = loaded(family), prompts(), Residuals(1)
    capture(model, rendered, [1], into=Rows(), batch_size=4, keep=entered)
    assert len(entered) == 3
    with _changed(model, 1):
        whole = capture(model, rendered, [2, 3], into=Rows(), batch_size=4)
        above = Residuals(2)
        with _counted(model) as ran:
            found = capture(model, rendered, [2, 3], into=Rows(), batch_size=4, after=entered, keep=above)
    assert entered.checked
    # the first batch runs twice, the second time whole; the attention of the last layer is in front of its MLP
    assert ran == [1, 2, 3, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3]
    with _changed(model, 1), _changed(model, 2):
        last = capture(model, rendered, [3], into=Rows(), batch_size=4)
        also = capture(model, rendered, [3], into=Rows(), batch_size=4, after=above)
    assert all(found[layer].equal(whole[layer]) for layer in (2, 3))
    assert also[3].equal(last[3])
    assert not last[3].equal(whole[3])


def test_the_model_is_as_before(llama: LoadedModel) -> None:
    entered = Residuals(2)
    before = capture(llama, prompts(), into=Rows())
    capture(llama, prompts(), [2], into=Rows(), keep=entered)
    capture(llama, prompts(), [3], into=Rows(), after=entered)
    after = capture(llama, prompts(), into=Rows())
    assert all(before[layer].equal(after[layer]) for layer in range(4))
    assert all("forward" not in vars(module) for module in llama.model.modules())


def test_batches_that_were_not_kept_are_run_whole(llama: LoadedModel) -> None:
    entered = Residuals(2)
    capture(llama, prompts(), [2], into=Rows(), batch_size=4, keep=entered)
    other = prompts((3, 6, 9), seed=4)
    whole = capture(llama, other, [3], into=Rows(), batch_size=4)
    with _counted(llama) as ran:
        found = capture(llama, other, [3], into=Rows(), batch_size=4, after=entered)
    assert ran == [0, 1, 2, 3]
    assert found[3].equal(whole[3])


def test_layers_below_are_recorded_by_whole_passes(llama: LoadedModel) -> None:
    entered = Residuals(2)
    capture(llama, prompts(), [2], into=Rows(), keep=entered)
    found = capture(llama, prompts(), [1, 3], into=Rows(), after=entered)
    lower = Residuals(1)
    capture(llama, prompts(), [3], into=Rows(), after=entered, keep=lower)
    whole = capture(llama, prompts(), [1, 3], into=Rows(), keep=Residuals(1))
    assert all(found[layer].equal(whole[layer]) for layer in (1, 3))
    with _changed(llama, 1):
        assert capture(llama, prompts(), [3], into=Rows(), after=lower)[3].equal(
            capture(llama, prompts(), [3], into=Rows())[3]
        )


def test_a_model_whose_layers_are_told_more_than_states_is_run_whole(llama: LoadedModel) -> None:
    """Something that a lower layer leaves for a higher one is lost where it does not run; the first batch shows it."""
    entered, left = Residuals(2), torch.zeros(())
    first, last = (llama.model.get_submodule(f"model.layers.{layer}") for layer in (0, 3))
    handles = [
        first.register_forward_hook(lambda _module, _args, output: left.copy_(output.mean()) and None),
        last.register_forward_pre_hook(lambda _module, args: (args[0] + left, *args[1:])),
    ]
    try:
        capture(llama, prompts(), [2], into=Rows(), batch_size=4, keep=entered)
        whole = capture(llama, prompts(), [3], into=Rows(), batch_size=4)
        found = capture(llama, prompts(), [3], into=Rows(), batch_size=4, after=entered)
    finally:
        for handle in handles:
            handle.remove()
    assert not entered.checked
    assert len(entered) == 0
    assert found[3].equal(whole[3])


def test_layers_that_hand_up_more_than_states_are_not_passed(llama: LoadedModel) -> None:
    entered = Residuals(1)
    below = llama.model.get_submodule("model.layers.0")
    own = below.forward
    below.forward = lambda *args, **kwargs: (own(*args, **kwargs), torch.zeros(1))
    unpack = llama.model.get_submodule("model.layers.1").register_forward_pre_hook(
        lambda _module, args: (args[0][0], *args[1:])
    )
    try:
        capture(llama, prompts(), [1], into=Rows(), keep=entered)
    finally:
        unpack.remove()
        del below.forward
    assert len(entered) == 0


def test_no_more_is_kept_than_there_is_room_for(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 8 * 4 * 12 * llama.model.config.hidden_size * 4

    monkeypatch.setattr("polysafe.probe.residual.psutil.virtual_memory", Memory)
    entered = Residuals(2)
    capture(llama, prompts(), [2], into=Rows(), batch_size=4, keep=entered)
    assert len(entered) == 1
    assert capture(llama, prompts(), [3], into=Rows(), batch_size=4, after=entered)[3].equal(
        capture(llama, prompts(), [3], into=Rows(), batch_size=4)[3]
    )
