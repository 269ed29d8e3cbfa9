"""A running model whose parts are addressed by the roles that `checkpoint/` tells.

transformers provides the forward pass; nothing here knows a model type. The tensors come from the source's reader, so
that a method in the middle of a recipe probes the model as edited so far, and the parameters of the loaded model are
classified by the same tables as the files, so that the two can be compared and modules be found by role.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.reader import TensorReader
from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole
from polysafe.checkpoint.source import Checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.modules import empty_model, moved, parameter_roles
from polysafe.edits.reader import EditedReader
from polysafe.errors import ArchitectureError, CheckpointError, ResourceError
from polysafe.probe.weights import changed_tensors, load_state, weights_sha256
from polysafe.progress import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DeviceMap = str | Mapping[str, int | str]


class Site(StrEnum):
    """A place in a decoder layer whose activations can be recorded.

    Attributes:
        MLP: Input of the MLP's first projections (gate and up, or fc_in), after the norm.
        UNITS: Output of the MLP's units, that is the input of its last projection: act(gate)·up, or act(fc_in).
        HEADS: Concatenated outputs of the attention heads, that is the input of the output projection.
    """

    MLP = "mlp"
    UNITS = "units"
    HEADS = "heads"


_PROJECTIONS: dict[Site, tuple[str, ...]] = {
    Site.MLP: ("gate", "gate_up", "fc_in", "up"),
    Site.UNITS: ("down", "fc_out"),
    Site.HEADS: ("o",),
}
_PARTS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up"), "fc_in": ("up",), "fc_out": ("down",)}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be probed.

    Attributes:
        source: What it was loaded from.
        model: The transformers model, in evaluation mode.
        parameters: The roles of its parameters; their names are those of the modules, not those of the files.
        changed: Tensors that differ from the source's files, because an edit or an adapter stands before them.
    """

    source: Source
    model: PreTrainedModel
    parameters: Architecture
    changed: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """The roles of the tensors in the files."""
        return self.source.architecture

    @property
    def device(self) -> torch.device:
        """Where token ids have to go."""
        first: torch.nn.Parameter = next(self.model.get_input_embeddings().parameters())
        kept = (p.device for p in self.model.parameters() if p.device.type != "meta")
        return first.device if first.device.type != "meta" else next(kept, torch.device("cpu"))

    @property
    def dtype(self) -> str:
        """Name of the type that it computes in, for example `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def max_tokens(self) -> int | None:
        """Longest sequence that its positions allow, None where the config does not say."""
        limit = self.source.checkpoint.text_config.get("max_position_embeddings")
        limit = self.source.checkpoint.text_config.get("n_positions") if limit is None else limit
        return limit if isinstance(limit, int) else None

    @cached_property
    def sha256(self) -> str:
        """Identity of its weights and config: the hashes of the files, and of every tensor that an edit changed."""
        return weights_sha256(self.source, self.changed)

    def module(self, layer: int, site: Site) -> tuple[str, torch.nn.Module]:
        """Name and module whose first input is recorded at `site` in `layer`.

        A layer of experts has no single first projection; there it is the block that holds router and experts, whose
        input is the same. The product of experts' units cannot be recorded.

        Raises:
            ArchitectureError: The layer does not exist or has no such place.
        """
        if not 0 <= layer < self.parameters.num_layers:
            raise ArchitectureError(
                f"there is no layer {layer}; the model has layers 0 … {self.parameters.num_layers - 1}",
                where=self.source.name,
            )
        name = self._projection(layer, _PROJECTIONS[site])
        if name is None and site is Site.MLP:
            name = self._mlp_block(layer)
        if name is None:
            raise ArchitectureError(
                f"layer {layer} has no projection of the kind {' or '.join(_PROJECTIONS[site])}",
                where=self.source.name,
                remedy="mixtures of experts and layers without an MLP or attention have no such place",
            )
        return name, self.model.get_submodule(name)

    def _projection(self, layer: int, kinds: tuple[str, ...]) -> str | None:
        """Module of the first kind of projection that the layer has outside its experts."""
        for kind in kinds:
            for name, role in self._weights(layer):
                if role.projection == kind and role.experts is None and role.expert is None:
                    return name.removesuffix(".weight")
        return None

    def _mlp_block(self, layer: int) -> str | None:
        """The module that holds all tensors of the layer's MLP."""
        names = self.parameters.layer_tensors(layer, Module.MLP)
        container = f"{self.parameters.prefix}.{layer}"
        blocks = {name[len(container) + 1 :].split(".")[0] for name in names}
        return f"{container}.{blocks.pop()}" if len(blocks) == 1 else None

    def _weights(self, layer: int) -> Iterator[tuple[str, TensorRole]]:
        for name in self.parameters.layer_tensors(layer):
            role = self.parameters.roles[name]
            if role.kind is Kind.PROJECTION and not role.bias:
                yield name, role


def load_model(
    source: Source,
    device: torch.device | str | None = None,
    device_map: DeviceMap | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Loads the model of a source for probing.

    The tensors are those that `source.reader` gives: behind an earlier edit or an adapter, the changed tensors are
    computed, and the others are read from the files. No code from the folder runs and nothing is downloaded.

    Args:
        source: What to load.
        device: Where to, the processor by default.
        device_map: How to spread a model over several devices, as transformers and accelerate understand it
            (`auto`, or module name -> device); `device` is ignored then.
        dtype: Type to compute in; float32 on the processor and the stored type on accelerators by default.

    Raises:
        CheckpointError: The weights are quantised, or files and model class do not have the same tensors.
        ArchitectureError: transformers has no class for the model, or its layers or projections are not those that
            were told from the files.
        ResourceError: The device cannot be used or is too small.
    """
    kept = _resident.get()
    if kept is not None and (known := kept.model_of(source, device, dtype)) is not None:
        return known
    check_editable(source.checkpoint)
    advance = counted(f"loading {source.name}", 1)
    target = device_named(device)
    on_cpu = device_map is None and target.type == "cpu"
    chosen = dtype or (torch.float32 if on_cpu else _stored_dtype(source))
    changed = changed_tensors(source)
    with quiet():
        model, info = _from_pretrained(source, load_state(source, changed), chosen, device_map)
        _check_loaded(source, info)
        if device_map is None:
            _move(model, target)
    model = _speaking(model.eval())
    loaded = LoadedModel(source, model, parameter_roles(model, source.checkpoint), changed)
    _check_same_architecture(loaded)
    advance()
    return loaded


@contextmanager
def edited(loaded: LoadedModel, edit: Edit, readers: Mapping[str, TensorReader]) -> Iterator[LoadedModel]:
    """The loaded model with an edit on it, for as long as the context lasts; nothing is loaded anew.

    The changed tensors are those that the edited checkpoint would hold, rounded to its storage type.

    Args:
        loaded: The model; it is changed in place and put back bit for bit.
        edit: An edit that starts from the loaded source.
        readers: A reader for each source of the edit; for `edit.start` the reader of the loaded source.

    Raises:
        ArchitectureError: transformers keeps a touched tensor in another form (as it does with experts); load the
            edited source instead.
    """
    reader = EditedReader(edit, readers)
    targets = {name: parameter_of(loaded, name, reader.spec(name).shape) for name in edit.touched}
    originals = {name: parameter.detach().clone() for name, parameter in targets.items()}
    changed = tuple(dict.fromkeys((*loaded.changed, *edit.touched)))
    try:
        for name, parameter in targets.items():
            _set(parameter, reader.whole(name))
        yield LoadedModel(replace(loaded.source, reader=reader), loaded.model, loaded.parameters, changed)
    finally:
        for name, parameter in targets.items():
            _set(parameter, originals[name])


class Resident:
    """A loaded model that stays, for many edits of it: within it, whoever loads its source gets this very model.

    Args:
        model: The model. Whoever gets it puts back what is changed.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self._known = {id(model.source.reader): model}
        self._tokens: list[Token[Resident | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_resident.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _resident.reset(self._tokens.pop())

    def model_of(
        self, source: Source, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> LoadedModel | None:
        """The model of a source, None where it is another one, or wanted elsewhere or in another type."""
        here = self.model.device == device_named(device)
        return self._known.get(id(source.reader)) if here and dtype in (None, self.model.model.dtype) else None

    @contextmanager
    def behind(self, source: Source, edit: Edit, readers: Mapping[str, TensorReader]) -> Iterator[None]:
        """Within it, the model is edited, and the one of a source behind the edit."""
        with edited(self.model, edit, readers) as model:
            self._known[id(source.reader)] = model
            try:
                yield
            finally:
                del self._known[id(source.reader)]


_resident: ContextVar[Resident | None] = ContextVar("resident", default=None)


@contextmanager
def resident_behind(source: Source, edit: Edit, readers: Mapping[str, TensorReader]) -> Iterator[None]:
    """As `Resident.behind`, where there is one; nothing happens otherwise."""
    kept = _resident.get()
    with nullcontext() if kept is None else kept.behind(source, edit, readers):
        yield


def parameter_of(loaded: LoadedModel, name: str, shape: tuple[int, ...]) -> torch.nn.Parameter:
    """The parameter that a tensor of the files became; files may leave out the prefix of the body, or have another.

    Args:
        loaded: The model.
        name: Name of the tensor in the files.
        shape: Its shape.

    Raises:
        ArchitectureError: transformers keeps it in another form (as it does with experts).
    """
    parameters = dict(loaded.model.named_parameters())
    inside = moved(name, loaded.architecture, loaded.parameters)
    for candidate in (name, f"{loaded.model.base_model_prefix}.{name}", inside):
        if candidate in parameters and parameters[candidate].shape == shape:
            return parameters[candidate]
    raise ArchitectureError(
        f"the loaded model has no parameter for {name!r}",
        where=loaded.source.name,
        remedy="load the edited source instead of editing the loaded model",
    )


def _set(parameter: torch.nn.Parameter, value: torch.Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)


def _stored_dtype(source: Source) -> torch.dtype:
    """The type of the largest tensor, which is an embedding or a projection."""
    return torch_dtype(max(source.checkpoint.tensors.values(), key=lambda spec: spec.numel).dtype)


def device_named(name: torch.device | str | None) -> torch.device:
    """A device by its name, the processor by default.

    Raises:
        ResourceError: There is none of that name.
    """
    try:
        return torch.device("cpu" if name is None else name)
    except RuntimeError as error:
        raise ResourceError(f"there is no device {name!r}", remedy="name cpu, cuda, cuda:1, mps, …") from error


def _from_pretrained(
    source: Source, state: dict[str, torch.Tensor], dtype: torch.dtype, device_map: DeviceMap | None
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    root = source.checkpoint.root
    try:
        empty = empty_model(source.checkpoint)
        loaded: Any = type(empty).from_pretrained(
            None, config=empty.config, state_dict=state, dtype=dtype, device_map=device_map, output_loading_info=True
        )
    except torch.OutOfMemoryError as error:
        raise too_large(error) from error
    except (ImportError, RuntimeError) as error:
        raise ResourceError(f"the model cannot be loaded: {error}", where=root) from error
    except Exception as error:  # its classes check what config.json says, each in its own way
        told = f"{type(error).__name__}: {error}"
        raise ArchitectureError(f"transformers cannot build this model: {told:.600}", where=root) from error
    model, info = loaded
    return model, info


def _check_loaded(source: Source, info: Mapping[str, Any]) -> None:
    """Every parameter must have come from a file, and no weight of a layer may be left over."""
    check_whole(source.checkpoint, info)
    left = [n for n in sorted(info["unexpected_keys"]) if _is_weight(source.architecture.roles.get(n))]
    if left:
        raise CheckpointError(
            f"has {len(left)} weights that the model class does not use, first {left[0]}",
            where=source.checkpoint.root,
            remedy="update transformers, or check the architecture that config.json names",
        )


def check_whole(checkpoint: Checkpoint, info: Mapping[str, Any]) -> None:
    """Every parameter must have come from a file.

    Raises:
        CheckpointError: One has not; names it.
    """
    missing = sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"])))
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} tensors of the model class, or has them in another shape; first {missing[0]}",
            where=checkpoint.root,
            remedy="config.json and weights belong to different models; fetch both again",
        )


def _is_weight(role: TensorRole | None) -> bool:
    return role is not None and role.kind in {Kind.PROJECTION, Kind.NORM, Kind.ROUTER, Kind.EMBEDDING}


def _move(model: PreTrainedModel, device: torch.device) -> None:
    try:
        model.to(device)  # type: ignore[arg-type]
    except torch.OutOfMemoryError as error:
        raise too_large(error) from error
    except (RuntimeError, AssertionError) as error:
        raise ResourceError(f"the device {device} cannot be used: {error}") from error


def too_large(error: Exception) -> ResourceError:
    return ResourceError(
        f"the model does not fit the device: {error}", remedy="use device_map: auto, a smaller dtype, or the processor"
    )


def _speaking(model: PreTrainedModel) -> PreTrainedModel:
    """What answers texts: the model, or a whole language model that lies in a wrapper for pictures (Llama 4)."""
    inner: Any = getattr(model, "language_model", None)
    if inner is None or getattr(inner, "lm_head", None) is None:
        return model
    inner.generation_config = model.generation_config
    speaking: PreTrainedModel = inner
    return speaking


def _check_same_architecture(loaded: LoadedModel) -> None:
    files, model = loaded.architecture, loaded.parameters
    if files.num_layers != model.num_layers:
        raise ArchitectureError(
            f"the files hold {files.num_layers} layers, the loaded model has {model.num_layers}",
            where=loaded.source.checkpoint.root,
        )
    for layer in range(files.num_layers):
        expected, found = _projections(files, layer), _projections(model, layer)
        if expected != found:
            raise ArchitectureError(
                f"layer {layer} has the projections {sorted(expected)} in the files "
                f"and {sorted(found)} in the loaded model",
                where=loaded.source.checkpoint.root,
                remedy="this architecture is not known well enough; please open an issue with its config",
            )


def _projections(architecture: Architecture, layer: int) -> frozenset[str]:
    """Projections of a layer, fused ones counted as their parts, those of an MLP by either of their names."""
    kinds = (architecture.roles[name].projection for name in architecture.layer_tensors(layer))
    return frozenset(part for kind in kinds if kind is not None for part in _PARTS.get(kind, (kind,)))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and load reports out of the way; what they tell is checked here."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
