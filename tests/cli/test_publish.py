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
    assert f"add the line `license: ID` under `output:` in {recipe}" in told


def test_a_licence_in_the_recipe_is_not_asked_for(polysafe: Polysafe, recipe: Path) -> None:
    """Before the run, or after it: then the card is completed, and the model is not made again."""
    out = recipe.parent / "out"
    assert "not settled" in polysafe("run", recipe).stderr
    before = (out / "model.safetensors").stat().st_mtime_ns
    recipe.write_text(recipe.read_text().replace("{path: ./out}", "{path: ./out, license: apache-2.0}"))
    again = polysafe("run", recipe)
    assert again.exit_code == 0
    assert "complete already" in again.stderr
    assert "not settled" not in again.stderr
    assert "\nlicense: apache-2.0\n" in (out / "README.md").read_text()
    assert verify_output(out).ok
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    recipe.write_text(
        recipe.read_text().replace("./out, license: apache-2.0", "./new, license: Other, license_name: ours-1.0")
    )
    fresh = polysafe("run", recipe)
    assert fresh.exit_code == 0
    assert "not settled" not in fresh.stderr
    text = (recipe.parent / "new" / "README.md").read_text()
    assert "\nlicense: other\nlicense_name: ours-1.0\n" in text
    assert "license" not in (out / "polysafe" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--license", "apach-2"), "did you mean 'apache-2.0'?"),
        (("--license", "apache 2.0"), "did you mean 'apache-2.0'?"),
        (("--license", "my-own"), "`other`, with a name of its own"),
        (("--license", "other"), "the licence `other` needs a name"),
        (("--license", "other", "--license-name", "A B"), "'A B' is not the name of a licence"),
        (("--license", "mit", "--license-name", "ours"), "only the licence `other` has a name"),
        (("--license-name", "ours"), "only the licence `other` has a name"),
    ],
)
def test_a_licence_that_the_hub_does_not_have_is_refused(
    polysafe: Polysafe, out: Path, options: tuple[str, ...], words: str
) -> None:
    for command in (("card", out), ("push", out, "team/model", "--dry-run")):
        refused = polysafe(*command, *options)
        assert refused.exit_code == 2
        assert words in refused.stderr
        assert "--license" in refused.stderr


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
    assert shown.exit_code == 1
    assert "private; licence not settled" in shown.stdout
    assert shown.stderr.startswith("a push would be refused: the licence")
    assert "model.safetensors" in shown.stdout
    lines = shown.stdout.splitlines()
    assert lines[0] == "---"
    assert "more lines of the card; `--dry-run --json` holds all of it" in lines[12]
    whole = polysafe("push", out, "team/model", "--dry-run", "--json")
    assert whole.exit_code == 1
    assert len(json.loads(whole.stdout)["card"].splitlines()) == 12 + int(lines[12].split()[1])
    accepted = polysafe("push", out, "team/model", "--dry-run", "--license", "mit")
    assert accepted.exit_code == 0
    assert "refused" not in accepted.stderr
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
