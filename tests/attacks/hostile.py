"""Hostile and damaged checkpoint folders. Each case writes one and says how polysafe has to answer.

`python -m tests.attacks FOLDER` writes them all, to be tried on any other program that opens checkpoints.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.checkpoint.raw import entry, one_tensor, raw, write_config, write_index

SINGLE = "model.safetensors"
SECRET = "secret.safetensors"
PWNED = "PWNED"
PROJECTION = "model.layers.0.self_attn.q_proj.weight"


@dataclass(frozen=True)
class Attack:
    """A case.

    Attributes:
        name: What the README calls it.
        write: Writes the folder. Beside it lies `secret.safetensors`, a sound file that is none of its business.
        refusal: Pattern of the message that refuses the folder.
    """

    name: str
    write: Callable[[Path], object]
    refusal: str


ATTACKS: dict[str, Attack] = {}


def attack(name: str, refusal: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Registers a case."""

    def register(write: Callable[[Path], object]) -> Callable[[Path], object]:
        ATTACKS[name] = Attack(name, write, refusal)
        return write

    return register


def write_attack(case: Attack, parent: Path) -> Path:
    """Writes the folder of a case below `parent`, and the secret beside it."""
    parent.mkdir(parents=True, exist_ok=True)
    (parent / SECRET).write_bytes(one_tensor())
    folder = write_config(parent / "checkpoint")
    case.write(folder)
    return folder


def _single(folder: Path, content: bytes) -> None:
    (folder / SINGLE).write_bytes(content)


def _index(folder: Path, name: str) -> None:
    (folder / "a.safetensors").write_bytes(one_tensor("a"))
    write_index(folder, {"a": "a.safetensors", "w": name})


def _paths() -> None:
    """Names in an index that are no plain file names, under the rules of any system."""
    names = {
        "parent folder": "../secret.safetensors",
        "deep parent folder": "a/../../secret.safetensors",
        "absolute path": "{beside}/secret.safetensors",
        "sub folder": "sub/secret.safetensors",
        "drive letter": "C:secret.safetensors",
        "drive path": "C:\\secret.safetensors",
        "unc path": "\\\\server\\share\\secret.safetensors",
        "backslash parent": "..\\secret.safetensors",
        "home folder": "~root.safetensors",
        "nul byte": "secret.safetensors\0.safetensors",
        "control character": "a\n.safetensors",
        "alternate stream": "a.safetensors:secret.safetensors",
        "no name": "",
        "dot": ".",
        "pickle suffix": "pytorch_model.bin",
        "python suffix": "modeling.py",
        "suffix in front": ".safetensors.pkl",
    }
    for title, name in names.items():
        attack(f"index: {title}", "which is not a .safetensors file in the same folder")(
            lambda folder, name=name: _path(folder, name)  # type: ignore[misc]
        )


def _path(folder: Path, name: str) -> None:
    """An index with that name, and the folder that some names lead through."""
    (folder / "a").mkdir()
    _index(folder, name.replace("{beside}", os.fspath(folder.parent.absolute())))


_paths()


@attack("index: link out of the folder", "is a link that leads out of the checkpoint folder")
def _link_out(folder: Path) -> None:
    (folder / "b.safetensors").symlink_to(Path("..") / SECRET)
    _index(folder, "b.safetensors")


@attack("index: absolute link out of the folder", "is a link that leads out of the checkpoint folder")
def _absolute_link(folder: Path) -> None:
    (folder / "b.safetensors").symlink_to((folder.parent / SECRET).absolute())
    _index(folder, "b.safetensors")


@attack("index: link chain out of the folder", "is a link that leads out of the checkpoint folder")
def _link_chain(folder: Path) -> None:
    (folder / "b.safetensors").symlink_to("c.safetensors")
    (folder / "c.safetensors").symlink_to(Path("..") / SECRET)
    _index(folder, "b.safetensors")


@attack("index: itself a link out of the folder", "is a link that leads out of the checkpoint folder")
def _index_link(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (folder / "a.safetensors").write_bytes(one_tensor())
    (folder / "model.safetensors.index.json").symlink_to(write_index(outside, {"w": "a.safetensors"}).absolute())


@attack("index: cyclic link", r"is missing \(or is a broken link\)")
def _cycle(folder: Path) -> None:
    (folder / "b.safetensors").symlink_to("c.safetensors")
    (folder / "c.safetensors").symlink_to("b.safetensors")
    _index(folder, "b.safetensors")


@attack("index: folder instead of a file", "is a folder or a device, not a file")
def _folder(folder: Path) -> None:
    (folder / "b.safetensors").mkdir()
    _index(folder, "b.safetensors")


@attack("index: name longer than a file name", r"is missing \(or is a broken link\)")
def _long_name(folder: Path) -> None:
    _index(folder, "x" * 5000 + ".safetensors")


@attack("index: value no text", "something that is no file name")
def _no_text(folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(one_tensor())
    write_index(folder, {"w": ["a.safetensors"]})


@attack("index: tensor named but absent", "is not in this file, although")
def _absent(folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(one_tensor("a"))
    write_index(folder, {"a": "a.safetensors", "w": "a.safetensors"})


@attack("index: tensor in another shard", "is not in this file, although")
def _elsewhere(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes(one_tensor(name))
    write_index(folder, {"a": "b.safetensors", "b": "b.safetensors", "c": "a.safetensors"})


@attack("index: tensor in two shards", "tensor 'w' is also in a.safetensors")
def _twice(folder: Path) -> None:
    (folder / "a.safetensors").write_bytes(one_tensor("w"))
    (folder / "b.safetensors").write_bytes(raw({"b": entry(), "w": entry(start=4)}, bytes(8)))
    write_index(folder, {"w": "a.safetensors", "b": "b.safetensors"})


@attack("index: beside a single file", "holds both")
def _both(folder: Path) -> None:
    _single(folder, one_tensor())
    _index(folder, "a.safetensors")


@attack("index: nested too deep", "is not valid JSON")
def _deep_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"a":' * 100_000)


@attack("index: larger than any index", "is larger than")
def _huge_index(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text("{}")
    os.truncate(path, 2**30)


@attack("shard: link out of the folder", "is a link that leads out of the checkpoint folder")
def _single_link(folder: Path) -> None:
    (folder / SINGLE).symlink_to(Path("..") / SECRET)


@attack("shard: pipe that never ends", "is a folder or a device, not a file")
def _pipe(folder: Path) -> None:
    os.mkfifo(folder / SINGLE)


@attack("shard: device that never ends", "is a link that leads out of the checkpoint folder")
def _device(folder: Path) -> None:
    (folder / SINGLE).symlink_to("/dev/zero")


@attack("shard: git-lfs pointer", "is a git-lfs pointer, not the weights")
def _pointer(folder: Path) -> None:
    _single(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n")


@attack("shard: web page", "is a web page, not the weights")
def _page(folder: Path) -> None:
    _single(folder, b"<!doctype html>\n<html><script>alert(1)</script>")


@attack("shard: empty", "is empty")
def _empty(folder: Path) -> None:
    _single(folder, b"")


@attack("shard: header of 16 exabytes", "above the limit")
def _exabytes(folder: Path) -> None:
    _single(folder, raw(b"{}", length=2**64 - 1))


@attack("shard: tensors on the same bytes", "overlaps its neighbour or leaves a hole")
def _overlap(folder: Path) -> None:
    """Thousands of large tensors in a small file are the bomb that the format forbids."""
    _single(folder, raw({f"t{i}": entry("U8", (1000,)) for i in range(1000)}, bytes(1000)))


@attack("shard: offsets beyond the file", "is cut short")
def _beyond(folder: Path) -> None:
    _single(folder, raw({"w": entry("U8", (2**40,))}, bytes(10)))


@attack("shard: shape that overflows", "does not take 0 bytes")
def _overflow(folder: Path) -> None:
    _single(folder, raw({"w": {"dtype": "U8", "shape": [2**62, 4, 2**62], "data_offsets": [0, 0]}}))


@attack("shard: pickle after the data", "bytes that its header does not describe")
def _polyglot(folder: Path) -> None:
    """A file that is two formats at once passes the scanner of one and the loader of the other."""
    _single(folder, one_tensor() + payload(folder))


@attack("shard: a zip archive", "is cut short|above the limit")
def _archive(folder: Path) -> None:
    _single(folder, b"PK\x03\x04" + bytes(100))


@attack("shard: a name twice", "a key stands in it twice")
def _name_twice(folder: Path) -> None:
    """Two readers of one file may see different tensors."""
    described = json.dumps(entry())
    _single(folder, raw(f'{{"w": {described}, "w": {described}}}'.encode(), bytes(4)))


def payload(folder: Path) -> bytes:
    """A pickle that leaves a mark if anything loads it."""

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (os.fspath(folder / PWNED),)

    return pickle.dumps(Payload())


@attack("pickle: only weights are a pickle", "holds pickled weights")
def _pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(payload(folder))


@attack("pickle: under the name of a safetensors file", "is cut short|above the limit")
def _renamed_pickle(folder: Path) -> None:
    _single(folder, payload(folder))


@attack("pickle: named by the index", "which is not a .safetensors file")
def _indexed_pickle(folder: Path) -> None:
    (folder / "weights.pkl").write_bytes(payload(folder))
    write_index(folder, {"w": "weights.pkl"})


@attack("config: link out of the folder", "is a link that leads out of the checkpoint folder")
def _config_link(folder: Path) -> None:
    _single(folder, one_tensor())
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to((folder.parent / SECRET).absolute())


@attack("config: pipe that never ends", "is a folder or a device, not a file")
def _config_pipe(folder: Path) -> None:
    _single(folder, one_tensor())
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


@attack("config: larger than any config", "is larger than")
def _huge_config(folder: Path) -> None:
    _single(folder, one_tensor())
    os.truncate(folder / "config.json", 2**35)


@attack("config: nested too deep", "is not valid JSON")
def _deep_config(folder: Path) -> None:
    _single(folder, one_tensor())
    (folder / "config.json").write_text("[" * 100_000)


@attack("config: number of a million digits", "is not valid JSON")
def _digits(folder: Path) -> None:
    """Reading such a number takes time that grows with its square."""
    _single(folder, one_tensor())
    (folder / "config.json").write_text('{"vocab_size": ' + "9" * 1_000_000 + "}")


@attack("tensors: layer number that would fill the memory", "layers have no tensors")
def _layer_number(folder: Path) -> None:
    names = (PROJECTION, PROJECTION.replace("0", "9999"))
    _single(folder, raw({n: entry("F32", (1, 1), 4 * i) for i, n in enumerate(names)}, bytes(8)))


@attack("tensors: quantised weights as if they were numbers", "is a quantised checkpoint")
def _codes(folder: Path) -> None:
    _single(folder, raw({PROJECTION: entry("U8", (4, 4))}, bytes(16)))


@attack("tensors: fewer layers than the config says", "but config.json states 32")
def _layers(folder: Path) -> None:
    write_config(folder, num_hidden_layers=32)
    _single(folder, raw({PROJECTION: entry("F32", (1, 1))}, bytes(4)))
