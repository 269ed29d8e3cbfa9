"""How commands end that nobody listens to, that are interrupted, or whose recipe wants a key sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from polysafe.generate.keys import VARIABLE
from tests.attacks.servers import KEY

Polysafe = Callable[..., Result]
TOP = Path(__file__).parents[2]
LINE = [sys.executable, "-m", "polysafe"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOP / "src")}


def ended_by(line: list[str] | str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, check=False, text=True, **{"env": ENVIRONMENT, **options})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("arguments", [["organism", "info"], ["--version"], ["--help"]], ids=" ".join)
def test_a_full_output_is_told(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = ended_by([*LINE, *arguments], stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 2
    assert ended.stderr == "error: standard output: cannot be used: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_where_errors_cannot_be_told_the_exit_code_stays() -> None:
    with open("/dev/full", "w") as full:
        ended = ended_by([*LINE, "organism", "build", "no"], stdout=subprocess.PIPE, stderr=full)
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_survived(closed: str) -> None:
    line = f"{sys.executable} -m polysafe organism info {closed}"
    ended = ended_by(line, shell=True, capture_output=True)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_an_output_that_cannot_show_a_letter_shows_its_number() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    ended = ended_by([*LINE, "inspect", "export", "/абв", "-o", "/x"], capture_output=True, env=environment)
    assert ended.returncode == 2
    assert "\\u0430\\u0431\\u0432" in ended.stderr


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground, wherever the tests run
class Interrupts:
    # The interruption arrives while {name} is imported; {what}.
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                {then}
sys.meta_path.insert(0, Interrupts())
from polysafe.cli import main
main()
"""


@pytest.mark.fault(16, "while something is imported")
@pytest.mark.parametrize(
    ("name", "then"),
    [("typer", "raise"), ("pydantic", "raise"), ("torch", "raise"), ("torch", "raise ImportError('says otherwise')")],
)
def test_an_interruption_while_something_is_imported_is_one(name: str, then: str, recipe: Path) -> None:
    program = INTERRUPTED.format(name=name, then=then, what="it is raised on, or hidden")
    # norms of the published arithmetic are torch's
    recipe.write_text(recipe.read_text().replace("language: sw", "language: sw\n    arithmetic: authors"))
    ended = ended_by([sys.executable, "-c", program, "plan", str(recipe)], capture_output=True)
    assert ended.stderr == "interrupted\n"
    assert ended.returncode in {130, -signal.SIGINT}


RECIPE = """
evaluate:
  languages: [en]
  safety: [organism]
  judge: {kind: openai, base_url: "URL", model: m, key: DEPLOY_TOKEN}
"""


def test_a_recipe_has_no_key_sent_unless_the_command_names_it(
    polysafe: Polysafe, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", KEY)
    monkeypatch.delenv(VARIABLE, raising=False)
    text = recipe.read_text()
    recipe.write_text(text + RECIPE.replace("URL", "https://evil.example/v1"))
    asked = ("evaluate", recipe, "--output", recipe.parent / "e")
    refused = polysafe(*asked)
    assert refused.exit_code == 2
    assert "DEPLOY_TOKEN sent to evil.example, which you did not allow" in refused.stderr
    assert polysafe(*asked, "--key", "DEPLOY_TOKEN@sound.example").exit_code == 2
    recipe.write_text(text + RECIPE.replace("URL", "http://evil.example/v1"))
    clear = polysafe(*asked, "--key", "DEPLOY_TOKEN")
    assert "would be sent to evil.example for all on the way to read" in clear.stderr
    assert VARIABLE not in os.environ
    for result in (refused, clear):
        assert KEY not in result.output


def test_no_key_stands_in_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from polysafe.cli.console import note, print_json, print_line, print_table
    from polysafe.secret import keep_secret

    keep_secret(KEY)
    print_json({"said": f"x{KEY}"})
    print_line(KEY)
    print_table(("what",), [(KEY,)], title=KEY)
    note(f"Bearer {KEY}")
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    assert shown.out.count("a key, not shown") == 4


def test_whoever_names_a_judge_can_name_its_key(polysafe: Polysafe, recipe: Path, tmp_path: Path) -> None:
    """Every command that reaches servers has the option: for those of a recipe, and for those that it names itself."""
    from typer.main import get_command

    from polysafe.cli.app import app

    commands = dict(walked(get_command(app)))
    options = {name: {each for one in command.params for each in one.opts} for name, command in commands.items()}
    assert all("--judge-key" in known for known in options.values() if "--judge" in known)
    of_recipes = {
        name for name, command in commands.items() if any(one.name in {"recipe", "recipes"} for one in command.params)
    }
    assert of_recipes >= {"run", "evaluate", "search", "plan", "edit controls"}
    assert all("--key" in options[name] for name in of_recipes - {"mergekit export"})  # which reaches none
    recipe.write_text(recipe.read_text() + RECIPE.replace("URL", "https://other.example/v1"))
    judge = ("--judge", "multijail=m@https://judge.example/v1", "--judge-key", "NO_SUCH_KEY")
    told = polysafe("evaluate", recipe, "-o", tmp_path / "e", *judge)
    assert told.exit_code == 2
    assert "NO_SUCH_KEY holds no key" in told.stderr
    alone = polysafe("evaluate", recipe, "-o", tmp_path / "e", *judge[2:])
    assert "a key of a judge needs a judge" in alone.stderr


def walked(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command, with the words that call it."""
    for word, each in getattr(command, "commands", {}).items():
        yield from walked(each, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command
