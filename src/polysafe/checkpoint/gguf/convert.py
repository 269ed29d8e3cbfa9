"""From a checked GGUF file to the tensors and small files of an ordinary checkpoint, through transformers.

transformers knows llama.cpp's names and how llama.cpp's converter changed some tensors (Llama's rows of queries and
keys are permuted, Gemma's norms are stored with one added, …). Its own loader holds the whole model in float32; here
every tensor is made by the same pieces when it is written. Where those do not tell how, the model is loaded whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polysafe.checkpoint.dtypes import TORCH_NAMES, bytes_of, torch_dtype
from polysafe.checkpoint.gguf.extra import transformers_package
from polysafe.checkpoint.gguf.header import GgufHeader, GgufTensor
from polysafe.checkpoint.gguf.quick import Readers, quick_reader
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.source import config_text
from polysafe.checkpoint.values import is_finite
from polysafe.errors import ArchitectureError, CheckpointError, PolysafeError, ResourceError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

BLOCK_ELEMENTS = 1 << 20
"""Numbers that are dequantised at a time."""

_TOKENS = ("tokenizer.ggml.model", "tokenizer.ggml.tokens")
_MACHINE = ("_name_or_path", "_model_name_or_path", "name_or_path", "is_local", "local_files_only")
"""Entries of configs that say where a file lay, or which library read it, and not what the model is."""
_OTHERS = ("quantization_config", "transformers_version", "gguf_file")

Matrix = np.ndarray[Any, np.dtype[Any]]


class Conversion:
    """The checkpoint that a GGUF file becomes.

    Attributes:
        specs: Its tensors in order; the file of a spec is the GGUF file.
        streamed: Whether tensors are made one by one, so that memory does not grow with the model.
        notes: What a reader should know.
    """

    def __init__(self, header: GgufHeader, dtype: str) -> None:
        """Reads the config and finds out which tensors feed which parameter; reads no tensor.

        Args:
            header: The checked header.
            dtype: Storage type of the output.

        Raises:
            ResourceError: transformers is missing.
            ArchitectureError: transformers does not know the architecture, or it is no language model.
            CheckpointError: There is no tokenizer in the file, or its metadata contradict its tensors.
        """
        transformers_package()
        _check_tokenizer(header)
        self._header, self._dtype = header, dtype
        self._file: Matrix = np.memmap(header.file, np.uint8, "r")
        self._read: Readers = {}
        model = _empty_model(header, self._read)
        self.config: PretrainedConfig = model.config
        self._class = type(model).__name__
        self._processor = _processor(header, model.config)
        parameters = _parameters(model)
        self._feeds = _feeds(header, model) if _is_plain(header, model, parameters) else None
        self.streamed = self._feeds is not None
        self.notes: tuple[str, ...] = ()
        if self._feeds is None:
            parameters = self._load_whole()
        else:
            self._check_complete(parameters)
        self.specs = tuple(
            TensorSpec(name, dtype, tuple(value.shape), header.file, 0, tensor_bytes(dtype, tuple(value.shape)))
            for name, value in parameters.items()
        )
        self._shapes = {spec.name: spec.shape for spec in self.specs}

    def blocks(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor of the output, block by block.

        Raises:
            CheckpointError: The file holds numbers that are none, or too large for the storage type, or a tensor of
                another shape than the config says.
        """
        self._read.clear()  # metadata of a large vocabulary take more memory than a block
        for block in self._values(name):
            stored = block.to(torch_dtype(self._dtype))
            if not is_finite(stored):
                raise self._not_finite(name, block)
            yield bytes_of(stored)

    def side_files(self) -> dict[str, bytes]:
        """Config, generation config, tokenizer and chat template by file name.

        Raises:
            CheckpointError: transformers cannot make a tokenizer of what the file holds.
        """
        files = {"config.json": self._config(), "generation_config.json": self._generation_config()}
        return files | _tokenizer_files(self._header, self._read)

    def _values(self, name: str) -> Iterator[torch.Tensor]:
        if self._feeds is None:
            yield self._whole[name]
            return
        feeds = self._feeds[name]
        if len(feeds) == 1 and self._is_unchanged(feeds[0]):
            self._check_shape(name, feeds[0].shape)
            yield from (torch.from_numpy(block) for block in self._dequantised(feeds[0]))
            return
        values = self._process(name, feeds)
        self._check_shape(name, values.shape)
        yield torch.from_numpy(np.ascontiguousarray(values))

    def _dequantised(self, tensor: GgufTensor) -> Iterator[Matrix]:
        """The numbers of a tensor as float32, some rows at a time."""
        import gguf

        rows = self._file[tensor.offset : tensor.offset + tensor.nbytes].reshape(-1, self._row_bytes(tensor))
        step = max(1, BLOCK_ELEMENTS // tensor.shape[-1])
        for start in range(0, len(rows), step):
            block = np.array(rows[start : start + step])
            yield gguf.dequantize(block, gguf.GGMLQuantizationType(tensor.code))

    def _row_bytes(self, tensor: GgufTensor) -> int:
        return tensor.nbytes // int(np.prod(tensor.shape[:-1], dtype=np.int64))

    def _is_unchanged(self, tensor: GgufTensor) -> bool:
        """Whether the processor hands a tensor back as it is; asked with a stand-in that takes no memory."""
        dummy = np.broadcast_to(np.float32(-1), tensor.shape)
        result = self._processor.process(weights=dummy, name=tensor.name, parsed_parameters={"tensors": {}})
        return result.weights is dummy and result.name == tensor.name

    def _process(self, name: str, feeds: list[GgufTensor]) -> Matrix:
        parsed: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}
        for tensor in feeds:
            weights = np.concatenate(list(self._dequantised(tensor))).reshape(tensor.shape)
            result = self._processor.process(weights=weights, name=tensor.name, parsed_parameters=parsed)
            if result.name is not None:
                return np.asarray(result.weights)
        return parsed["tensors"][name].numpy()

    def _check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if tuple(shape) != self._shapes[name]:
            raise CheckpointError(
                f"tensor {name!r} has the shape {list(shape)}, its metadata say {list(self._shapes[name])}",
                where=self._header.file,
                remedy="download the file again",
            )

    def _not_finite(self, name: str, block: torch.Tensor) -> CheckpointError:
        if is_finite(block):
            largest = float(block.abs().max())
            return CheckpointError(
                f"tensor {name!r} holds {largest:g}, too large for {self._dtype}",
                where=self._header.file,
                remedy="use BF16 or F32",
            )
        return CheckpointError(
            f"tensor {name!r} holds values that are no finite numbers",
            where=self._header.file,
            remedy="download the file again",
        )

    def _check_complete(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Refuses a file without all parameters, and notes what in it belongs to none."""
        assert self._feeds is not None
        missing = [name for name in parameters if name not in self._feeds]
        if missing:
            raise CheckpointError(
                f"holds nothing for {len(missing)} parameters of {self._class}, first {missing[0]!r}",
                where=self._header.file,
                remedy="use a file of the whole model; parts and adapters cannot be imported",
            )
        used = {tensor.name for name in parameters for tensor in self._feeds[name]}
        unused = [tensor.name for tensor in self._header.tensors if tensor.name not in used]
        if unused:
            listed = ", ".join(unused[:3]) + (" …" if len(unused) > 3 else "")
            self.notes += (f"{len(unused)} tensors of the file have no place in {self._class}: {listed}",)

    def _load_whole(self) -> dict[str, torch.Tensor]:
        """The fallback: transformers loads the model, and gives its tensors the names in which it saves them."""
        self.notes += ("was loaded whole, because transformers cannot make its tensors one by one",)
        self._whole = _whole_model(self._header, self._read)
        return self._whole

    def _config(self) -> bytes:
        content = _without_machine(json.loads(self.config.to_json_string()))
        return config_text({**content, "architectures": [self._class], "dtype": TORCH_NAMES[self._dtype]})

    def _generation_config(self) -> bytes:
        from transformers import GenerationConfig

        content = json.loads(GenerationConfig.from_model_config(self.config).to_json_string())
        return config_text(_without_machine(content))


def _check_tokenizer(header: GgufHeader) -> None:
    if any(key not in header.metadata for key in _TOKENS):
        raise CheckpointError(
            "holds no tokenizer",
            where=header.file,
            remedy="use a file that was converted with its vocabulary (llama.cpp's `convert_hf_to_gguf.py` does so)",
        )


def _without_machine(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in (*_MACHINE, *_OTHERS)}


@contextmanager
def _alone(header: GgufHeader, read: Readers) -> Iterator[dict[str, Any]]:
    """The file in a folder of its own: transformers would also read what happens to lie beside it.

    Whatever goes wrong inside is due to the content of the file, and is told as such.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.gguf").symlink_to(header.file.absolute())
        with _explained(header), quick_reader(read):
            yield {
                "pretrained_model_name_or_path": folder,
                "gguf_file": "model.gguf",
                "local_files_only": True,
                "trust_remote_code": False,
            }


@contextmanager
def _explained(header: GgufHeader) -> Iterator[None]:
    """Turns what transformers says about a file into a refusal."""
    try:
        yield
    except (PolysafeError, MemoryError):
        raise
    except Exception as error:  # what a hostile file makes of a parser cannot be listed
        raise CheckpointError(
            f"transformers cannot make a model of it: {type(error).__name__}: {error}",
            where=header.file,
            remedy="update transformers and gguf (`pip install -U 'polysafe[gguf]'`), or use another file",
        ) from error


def _empty_model(header: GgufHeader, read: Readers) -> PreTrainedModel:
    """The model that the metadata describe, without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {*GGUF_SUPPORTED_ARCHITECTURES, *_newer_architectures()} - {"general", "tokenizer"}
    if _plain_name(header.architecture) not in map(_plain_name, known):
        raise ArchitectureError(
            f"has the architecture {header.architecture!r}, of which transformers reads no GGUF files",
            where=header.file,
            remedy=f"known: {', '.join(sorted(known))}; a newer transformers may know more",
        )
    with _alone(header, read) as arguments:
        config = AutoConfig.from_pretrained(**arguments)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise ArchitectureError(
                f"is a {config.model_type} model, which is no causal language model",
                where=header.file,
                remedy="name a model that continues text",
            )
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _plain_name(architecture: str) -> str:
    """llama.cpp and transformers write `qwen3moe` and `qwen3_moe`."""
    return architecture.replace("-", "").replace("_", "")


def _newer_architectures() -> tuple[str, ...]:
    """Those that newer versions of transformers read in another way."""
    try:
        from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
    except ImportError:
        return ()
    return tuple(GGUF_ARCHS)


def _parameters(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Everything that is saved of a model; tied parameters stand under their first name only."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        found.setdefault(id(value), (name, value))
    return dict(found.values())


def _is_plain(header: GgufHeader, model: PreTrainedModel, parameters: Mapping[str, torch.Tensor]) -> bool:
    """Whether tensors can be made one by one, and are saved under the names that they have in the model."""
    return header.architecture not in _newer_architectures() and set(_as_saved(model, parameters)) == set(parameters)


def _as_saved(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names, and in the pieces, in which transformers saves them (experts apart from each other)."""
    from transformers.core_model_loading import revert_weight_conversion

    with torch.no_grad():
        saved: dict[str, torch.Tensor] = revert_weight_conversion(model, dict(tensors))
    return saved


def _processor(header: GgufHeader, config: PretrainedConfig) -> Any:
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    kind: Callable[..., Any] = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)
    return kind(config=config.to_dict())


def _feeds(header: GgufHeader, model: PreTrainedModel) -> dict[str, list[GgufTensor]]:
    """Parameter -> the tensors of the file that it is made of."""
    from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

    with _explained(header):
        names = get_gguf_hf_weights_map(_Outside(model), _processor(header, model.config))
    feeds: dict[str, list[GgufTensor]] = {}
    for tensor in header.tensors:
        if tensor.name in names:
            feeds.setdefault(names[tensor.name], []).append(tensor)
    return feeds


class _Outside:
    """A model, for the search for names, down to its lists of blocks and not into them.

    transformers makes the table of all names anew in every module that it comes to, and the names of the table begin
    outside of the blocks: looking inside takes a hundred times as long and finds nothing.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module

    @property
    def config(self) -> Any:
        return self._module.config

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._module.state_dict()

    def named_children(self) -> list[tuple[str, _Outside]]:
        found = self._module.named_children()
        return [(name, _Outside(each)) for name, each in found if not isinstance(each, torch.nn.ModuleList)]


def _whole_model(header: GgufHeader, read: Readers) -> dict[str, torch.Tensor]:
    from importlib.util import find_spec

    from transformers import AutoModelForCausalLM

    if find_spec("accelerate") is None:
        raise ResourceError(
            f"loading the architecture {header.architecture!r} needs the package accelerate",
            where=header.file,
            remedy="pip install 'polysafe[large]'",
        )
    with _alone(header, read) as arguments:
        options = {**arguments, "dtype": torch.float32, "output_loading_info": True, **_unpacked()}
        load: Any = AutoModelForCausalLM.from_pretrained
        model, told = load(**options)
        lost = sorted({*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])})
        if lost:
            raise CheckpointError(
                f"holds nothing that fits {len(lost)} parameters of {type(model).__name__}, first {lost[0]!r}",
                where=header.file,
                remedy="use another file of this model",
            )
        return {name: value.detach() for name, value in _as_saved(model, _parameters(model)).items()}


def _unpacked() -> dict[str, Any]:
    """The option that keeps newer versions of transformers from computing on quantised blocks."""
    try:
        from transformers.utils.quantization_config import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _tokenizer_files(header: GgufHeader, read: Readers) -> dict[str, bytes]:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder, _alone(header, read) as arguments:
        AutoTokenizer.from_pretrained(**arguments).save_pretrained(folder)
        files = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
        content = {name: path.read_bytes() for name, path in sorted(files.items())}
    name = "tokenizer_config.json"
    return content | {name: config_text(_without_machine(json.loads(content[name])))}
