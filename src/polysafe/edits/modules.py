"""What the tensors of a checkpoint are called in the model that transformers makes of it.

Files keep the names under which a model was first released, and transformers renames modules: those of a language model
inside a wrapper for pictures, or of a checkpoint that was saved without its outer container.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from polysafe.checkpoint.header import Header, TensorSpec
from polysafe.checkpoint.roles import Architecture, classify
from polysafe.checkpoint.source import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_OTHER_NAMES = {"fc_in": "up", "fc_out": "down"}


def empty_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model of a checkpoint's config without weights; no code from the folder runs and nothing is downloaded.

    Raises:
        Exception: transformers is not there, or has no class for the config; whatever its classes raise.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(checkpoint.root, local_files_only=True, trust_remote_code=False)
    # a language model that is released inside a wrapper for pictures has the config of both
    family: Any = AutoModelForCausalLM if config.get_text_config() is config else AutoModelForImageTextToText
    with torch.device("meta"):
        model: PreTrainedModel = family.from_config(config, trust_remote_code=False)
    return model


def parameter_roles(model: PreTrainedModel, checkpoint: Checkpoint) -> Architecture:
    """The roles of a model's own parameters, told by the tables that tell those of its files.

    Raises:
        ArchitectureError: As for files.
    """
    root = checkpoint.root
    specs = {
        name: TensorSpec(name, "F32", tuple(parameter.shape), root, 0, 0)
        for name, parameter in model.named_parameters()
    }
    return classify(Checkpoint(root, checkpoint.origin, (Header(root, 0, 0, specs),), checkpoint.config))


def moved(tensor: str, files: Architecture, model: Architecture) -> str:
    """Name of a layer's tensor in a model, from its name in the files; of any other tensor the same name.

    Below the layer it is called the same, or is told by its role: an only projection of its kind.
    """
    if not tensor.startswith(f"{files.prefix}."):
        return tensor
    name, role = f"{model.prefix}{tensor.removeprefix(files.prefix)}", files.roles[tensor]
    if name in model.roles or role.projection is None or role.layer is None:
        return name
    alike = {role.projection, _OTHER_NAMES.get(role.projection)}
    found = [
        each
        for each in model.layer_tensors(role.layer, role.module)
        if model.roles[each].projection in alike and replace(model.roles[each], projection=role.projection) == role
    ]
    return found[0] if len(found) == 1 else name
