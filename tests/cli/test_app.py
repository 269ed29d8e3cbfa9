"""Start-up, help, exit codes and signals."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import polysafe as package
from tests.processes import MAIN, light

Polysafe = Callable[..., Result]
Command = Callable[..., subprocess.Popen[str]]

HEAVY = (
    "torch",
    "inspect_ai",
    "transformers",
    "matplotlib",
    "scipy",
    "numpy",
    "safetensors",
    "huggingface_hub",
    "yaml",
)
IMPORTS = f"""
import sys
from polysafe.cli import main
for line in sys.argv[1:]:
    sys.argv[1:] = line.split("|") if line else []
    try:
        main()
    except SystemExit:
        print("heavy:", line, [name for name in {HEAVY!r} if name in sys.modules])
"""
"""Carries out commands one after the other in one process; what one imports, those after it have too."""
HELPS = (
    "--version",
    *("", "--help"),
    *(
        f"{name}|--help"
        for name in ("plan", "run", "quickstart", "reproduce", "edit", "organism", "inspect", "mergekit")
    ),
)


def test_help_imports_nothing_heavy(command: Command) -> None:
    out, _ = command(*HELPS, program=IMPORTS).communicate()
    assert [line for line in out.splitlines() if line.startswith("heavy:")] == [f"heavy: {line} []" for line in HELPS]


def test_editing_imports_no_model_class_and_no_statistics_and_copying_no_torch(command: Command, recipe: Path) -> None:
    copies = recipe.with_name("copies.yaml")
    text = recipe.read_text().replace("language: sw", "language: sw\n    outside: language")
    copies.write_text(text.replace("./out", "./copies"))
    lines = [f"plan|{recipe}", f"run|{copies}", f"run|{recipe}"]
    out, _ = command(*lines, program=IMPORTS).communicate()
    told = [line for line in out.splitlines() if line.startswith("heavy:")]
    assert (recipe.parent / "copies" / "model.safetensors").exists()
    assert ["'torch'" in line for line in told] == [False, False, True], "only numbers that are computed need it"
    for line in told:
        assert not any(f"'{name}'" in line for name in ("transformers", "scipy", "matplotlib", "inspect_ai"))


def test_importing_the_package_imports_nothing_heavy(command: Command) -> None:
    program = f"import sys, polysafe; print([name for name in {HEAVY!r} if name in sys.modules])"
    out, err = command(program=program).communicate()
    assert (out, err) == ("[]\n", "")


def test_version(polysafe: Polysafe) -> None:
    result = polysafe("--version")
    assert (result.exit_code, result.stdout) == (0, f"polysafe {package.__version__}\n")


@pytest.mark.parametrize(
    "name",
    ["quickstart", "plan", "run", "verify", "reproduce", "schema", "edit", "organism", "inspect", "mergekit"],
)
def test_help_lists_every_command(polysafe: Polysafe, name: str) -> None:
    assert name in polysafe("--help").stdout
    assert polysafe(name, "--help").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan"],
        ["plna"],
        ["plan", "a.yaml", "--jsn"],
        ["run"],
        ["edit", "apply", "x"],
        ["organism", "build", "--seed", "-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_bad_input(polysafe: Polysafe, arguments: list[str]) -> None:
    result = polysafe(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_mistyped_command_gets_a_suggestion(polysafe: Polysafe) -> None:
    assert "'plan'" in polysafe("plna").stderr


def test_error_is_printed_once_without_a_traceback(polysafe: Polysafe, tmp_path: Path) -> None:
    result = polysafe("plan", tmp_path / "absent.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"error: {tmp_path / 'absent.yaml'}: cannot be read: No such file or directory\n"


def test_debugging_shows_where_an_error_was_raised(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSAFE_DEBUG", "1")
    result = polysafe("plan", tmp_path / "absent.yaml")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_recipe_error_names_the_line(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("safety: safety", "safety: safty"))
    result = polysafe("plan", recipe)
    assert result.exit_code == 2
    assert f"error: {recipe}:9: edits[0].safety: no source is called 'safty'" in result.stderr
    assert "did you mean 'safety'?" in result.stderr


def test_control_characters_of_a_file_do_not_reach_the_terminal(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("./sw", '"\\e[31m[bold]x[/bold]\u202e"'))
    result = polysafe("plan", recipe)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "\u202e" not in result.stderr
    assert "[bold]x[/bold]" in result.stderr


UNEXPECTED = light(
    """
def broken(recipes):
    raise KeyError("a defect")
""",
    "broken",
)


def test_unexpected_exception_keeps_its_traceback_and_asks_for_a_report(command: Command, recipe: Path) -> None:
    process = command("run", recipe, program=UNEXPECTED)
    out, err = process.communicate()
    assert process.returncode == 70
    assert out == ""
    assert "Traceback" in err
    assert "KeyError: 'a defect'" in err
    assert "Please report it" in err


PATIENCE = 120
"""Seconds in which a process surely ends; a test does not wait for ever for one that does not."""

WAIT = """
import sys, time
def wait(recipes, **options):
    print("waiting", flush=True)
    print(sys.stdin.readline(), end="", flush=True)
    time.sleep(600)
"""
REAL = f"import polysafe.cli.commands.run\n{WAIT}\npolysafe.cli.commands.run.run_recipes = wait\n{MAIN}"
"""The command itself, which waits where it would carry something out."""
LIGHT = light(WAIT)


@pytest.mark.fault(16, "SIGINT", "SIGTERM", "SIGHUP")
@pytest.mark.parametrize(
    ("sent", "code", "word", "program"),
    [
        (signal.SIGINT, 130, "interrupted", REAL),
        (signal.SIGTERM, 143, "terminated", LIGHT),
        (signal.SIGHUP, 129, "hung up", LIGHT),
    ],
)
def test_signals_end_a_run_with_their_code(
    command: Command, recipe: Path, sent: signal.Signals, code: int, word: str, program: str
) -> None:
    process = command("run", recipe, program=program)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert err == f"{word}; run the same command again to go on from here\n"


@pytest.mark.fault(16, "signals that are ignored")
def test_a_run_that_was_started_with_interrupts_ignored_ignores_them_and_ends_when_it_is_asked_to(
    command: Command, recipe: Path
) -> None:
    """So do `nohup` and the jobs that a script starts with `&`: whoever interrupts the script does not mean them."""
    process = command("run", recipe, program=LIGHT, ignores_interrupts=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    process.stdin.write("still there\n")
    process.stdin.flush()
    assert process.stdout.readline() == "still there\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert err == "terminated; run the same command again to go on from here\n"


def test_reader_that_goes_away_is_no_defect(command: Command) -> None:
    process = command("schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait()
    assert "Traceback" not in err
    process.stderr.close()


def test_schema_is_one_json_document(polysafe: Polysafe) -> None:
    result = polysafe("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "Recipe"
