"""The guard that keeps tests on this machine, and the hosts that commands ask for: those that they are told of."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.organism import packaged
from tests.engine.recipes import LAYER_SWAP, recipe_for
from tests.evaluate.served import Telling, bread_is_unsafe
from tests.generate.test_server import serving
from tests.models import trio
from tests.supply.network import ForeignHostError, asked_hosts, asks_nobody, is_here, without_proxies

TOY = str(Path(packaged.__file__).parent / "family" / "base")
NOBODY = "203.0.113.9"  # an address of documentation, which nobody has


def _connect() -> None:
    with socket.socket() as one:
        one.connect((NOBODY, 80))


def _swallow() -> None:
    with suppress(ForeignHostError):
        socket.getaddrinfo("host.invalid", 443)


@pytest.mark.parametrize(
    ("act", "host"),
    [
        (_connect, NOBODY),
        (lambda: socket.create_connection(("host.invalid", 1)), "host.invalid"),
        (lambda: socket.gethostbyname("host.invalid"), "host.invalid"),
        (_swallow, "host.invalid"),
    ],
)
def test_whoever_asks_for_another_host_fails_and_is_named(act: Callable[[], object], host: str) -> None:
    @asks_nobody()
    def test() -> None:
        with suppress(ForeignHostError):
            act()

    with pytest.raises(pytest.fail.Exception, match=f"asked for {host}; a test reaches"):
        test()


def test_the_refusal_names_the_host() -> None:
    with asked_hosts(), pytest.raises(ForeignHostError, match=f"may not reach {NOBODY}"):
        _connect()


def test_a_child_process_is_named_too() -> None:
    program = "import httpx; httpx.get('https://host.invalid/v1')"
    with asked_hosts() as found:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, env=dict(os.environ))
    assert done.returncode
    assert found == ["host.invalid"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", ""])
def test_this_machine_may_be_reached(host: str) -> None:
    assert is_here(host)
    assert not any(map(is_here, ["10.0.0.1", "host", "127.0.0.1.example.org", "::ffff:203.0.113.9"]))


def asked(*words: object) -> set[str]:
    """The hosts that a command asks for. Where it reaches none of them, it ends as the guard has it."""
    with asked_hosts() as found:
        done = CliRunner().invoke(app, [str(word) for word in words])
    refused = isinstance(done.exception, ForeignHostError) or done.exit_code == 2
    assert refused if found else done.exit_code == 0, (done.output, done.exit_code, done.exception)
    return set(found)


def test_commands_that_name_no_host_ask_for_none(tmp_path: Path) -> None:
    paths, out = trio(tmp_path, layers=2).paths, tmp_path / "out"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_for(paths, out, LAYER_SWAP).to_yaml())
    sources = [f"--source={name}={folder}" for name, folder in paths.items()]
    undo = ("--edited", out, "--original", paths["sw"])
    table = tmp_path / "mine_en.csv"
    table.write_text("question\nHow do I bake bread?\n")
    for words in (
        ("plan", recipe),
        ("run", recipe),
        ("verify", out, "--deep"),
        ("card", out, "--license", "apache-2.0"),
        ("push", out, "owner/name", "--dry-run"),
        ("edit", "explain", out / "polysafe"),
        ("edit", "apply", out / "polysafe", "-o", tmp_path / "applied", *sources),
        ("edit", "undo", out / "polysafe", "-o", tmp_path / "undone", *undo),
        ("audit", TOY, "--safety", "organism", "--judge", "organism", "--limit", "1", "-o", tmp_path / "a"),
        ("audit", TOY, "--safety", table, "--template", "raw", "--max-tokens", "4", "-o", tmp_path / "b"),
        ("compare", tmp_path / "a", tmp_path / "a"),
        ("report", tmp_path / "a"),
        ("schema",),
    ):
        assert asked(*words) == set(), words


def test_a_served_model_is_asked_and_nobody_else(tmp_path: Path) -> None:
    table = tmp_path / "mine_en.csv"
    table.write_text("question\nHow do I bake bread?\n")
    with serving(Telling(bread_is_unsafe)) as url:
        judge = f"qwen3guard=guard@{url}"
        assert asked("audit", f"model@{url}", "--safety", table, "--judge", judge, "-o", tmp_path / "run") == set()


JUDGE = "qwen3guard=g@https://judge.invalid/v1"
HUB = f"""
polysafe: 1
sources:
  base: {{hub: owner/base, revision: {"a" * 40}}}
  safety: {{path: ./safety}}
  sw: {{path: ./sw}}
edits:
  - {{method: layer_swap, base: base, safety: safety, language: sw}}
output: {{path: ./out}}
"""


@pytest.mark.parametrize(
    ("words", "host"),
    [
        (("audit", "m@https://model.invalid/v1", "--safety", "mine_en.csv", "-o", "run"), "model.invalid"),
        (
            ("audit", TOY, "--safety", "mine_en.csv", "--template", "raw", "-o", "run", "--judge", JUDGE),
            "judge.invalid",
        ),
        (("plan", "hub.yaml"), "huggingface.co"),
    ],
)
def test_a_host_that_is_named_is_asked_and_no_other(
    words: tuple[str, ...], host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_proxies(monkeypatch)
    trio(tmp_path, layers=2)
    (tmp_path / "mine_en.csv").write_text("question\nHow do I bake bread?\n")
    (tmp_path / "hub.yaml").write_text(HUB)
    monkeypatch.chdir(tmp_path)
    assert asked(*words) == {host}
