from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from polysafe.checkpoint.verify import verify_output

Polysafe = Callable[..., Result]


@pytest.fixture
def out(polysafe: Polysafe, recipe: Path) -> Path:
    assert polysafe("run", recipe).exit_code == 0
    return recipe.parent / "out"


def test_run_asks_for_a_licence(polysafe: Polysafe, recipe: Path) -> None:
    told = polysafe("run", recipe).stderr
    assert "the licence of the result is not settled (base: unknown; safety: unknown; sw: unknown)" in told
    assert "polysafe card" in told


def test_card_takes_a_licence(polysafe: Polysafe, out: Path) -> None:
    result = polysafe("card", out, "--license", "apache-2.0")
    assert result.exit_code == 0
    assert "licence apache-2.0" in result.stdout
    assert "not settled" not in result.stderr
    told = json.loads(polysafe("card", out, "--json").stdout)
    assert told["licence"] == "apache-2.0"
    assert told["rows"] == 0
    assert "Nothing was measured" in told["not_measured"][0]
    assert verify_output(out).ok
    assert polysafe("card", out, "--license", "a b").exit_code == 2
    assert polysafe("card", out.parent).exit_code == 2


def test_dry_run_shows_what_would_go(polysafe: Polysafe, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a dry run contacts somebody"))
    shown = polysafe("push", out, "team/model", "--dry-run")
    assert shown.exit_code == 0
    assert "private; licence not settled" in shown.stdout
    assert "would be refused: the licence" in shown.stderr
    assert "model.safetensors" in shown.stdout
    told = json.loads(polysafe("push", out, "team/model", "--dry-run", "--license", "mit", "--public", "--json").stdout)
    assert told["dry_run"] is True
    assert told["visibility"] == "public"
    assert told["licence"] == "mit"
    assert told["objections"] == []
    assert told["card"].startswith("---\nlicense: mit\n")
    assert "polysafe/manifest.json" in [file["path"] for file in told["files"]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "licence of the result is not settled"),
        (("--license", "mit", "--with-answers"), "whose answers?"),
        (("--license", "mit", "--token-env", "NOT_SET_ANYWHERE"), "'NOT_SET_ANYWHERE' is not set"),
        (("--license", "mit", "--with-report", "nowhere"), "neither a report nor results"),
    ],
)
def test_what_push_refuses_before_it_contacts_anybody(
    options: tuple[str, ...], problem: str, polysafe: Polysafe, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("contacts somebody"))
    result = polysafe("push", out, "team/model", *options)
    assert result.exit_code == 2
    assert problem in result.stderr
