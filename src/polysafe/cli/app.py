"""The commands and their options. What a command does is in a module of its own, imported when it runs."""

from __future__ import annotations

import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from polysafe.cli.choosing import CHOOSING
from polysafe.cli.console import DEFECT, Terminated, end_by, endings, finish, note, open_streams
from polysafe.cli.groups import GROUPS
from polysafe.cli.measuring import MEASURING
from polysafe.cli.options import (
    Address,
    Again,
    Asked,
    Cores,
    Data,
    Device,
    Disk,
    Dtype,
    Engine,
    Grouping,
    Json,
    JudgeKey,
    Key,
    Licence,
    LicenceName,
    MaxTokens,
    Model,
    Network,
    Nodes,
    Output,
    Pivot,
    Quiet,
    Rate,
    Recipes,
    Speed,
    carried_out_by,
)


class _Commands(TyperGroup):
    """Ends every command with a message and an exit code instead of a traceback."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        with endings():  # of what options do as they are read: `--version`, `--help`
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        with endings():
            return super().invoke(ctx)


app = typer.Typer(
    name="polysafe",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # laying help out with rich costs more than everything else that `--help` does
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make an open-weight language model as safe in every language as it is in English, by editing weights.",
    epilog="Exit codes: 0 done, 1 a check said no, 2 bad input, 130 interrupted, 143 terminated, 129 hung up.",
)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _show_version(value: bool) -> None:
    if value:
        from polysafe._version import __version__

        typer.echo(f"polysafe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None: ...


@app.command()
@carried_out_by("quickstart:quickstart")
def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("quickstart-out"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one per core by default.", show_default=False)
    ] = None,
    family: Annotated[
        Literal["toy", "gemma"],
        typer.Option(help="toy, packaged, or gemma, in real languages: built first where it is not there."),
    ] = "toy",
    data: Annotated[
        Path | None, typer.Option(help="For gemma: folder with a folder per set.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="For gemma: seed of the family.", min=0)] = 0,
    limit: Annotated[
        int | None, typer.Option(help="For gemma: parallel rows of every set.", min=1, show_default=False)
    ] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Run the whole story on a family that has the problem."""


@app.command()
@carried_out_by("plan:plan")
def plan(
    recipes: Recipes,
    again: Again = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Run models where a method needs that, and keep what it decides for `run`.")
    ] = False,
    data: Data = None,
    nodes: Nodes = None,
    disk: Disk = None,
    network: Network = None,
    cores: Cores = None,
    rate: Rate = None,
    audit: Asked = None,
    speed: Speed = None,
    _key: Key = None,
    as_json: Json = False,
    _quiet: Quiet = False,
    save: Annotated[
        Path | None, typer.Option(help="Also write the plan to this file, as JSON.", show_default=False)
    ] = None,
) -> None:
    """Show what recipes would do and what they need. What several read to decide is read once."""


@app.command()
@carried_out_by("run:run")
def run(
    recipes: Recipes,
    engine: Engine = "local",
    address: Address = None,
    data: Data = None,
    again: Again = False,
    _key: Key = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Carry out recipes, or go on where they were interrupted. What several read to decide is read once."""


@app.command()
@carried_out_by("run:verify")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that polysafe wrote.", show_default=False)],
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compare its logits with those of its sources with the edit on them.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER for every model that the edit names, where they are not where the recipe says.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Check an output against its manifest, and with --deep against its edit."""


for _command in CHOOSING:
    app.command()(_command)


@app.command("import")
@carried_out_by("run:import_weights")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="GGUF file, package:NAME (package:NAME/FILE.gguf) for one in an installed package, or folder of a "
            "quantised model (FP8, MXFP4, bitsandbytes, compressed-tensors).",
            show_default=False,
        ),
    ],
    output: Output,
    dtype: Annotated[str, typer.Option(help="Type of the weights: BF16, F16 or F32.")] = "BF16",
    shard_size: Annotated[str, typer.Option(help="Largest size of a weight file.")] = "5GB",
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Make an ordinary model folder of a GGUF file, or of a quantised model."""


for _command in MEASURING:
    app.command()(_command)


@app.command()
@carried_out_by("reproduce:reproduce")
def reproduce(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of results, or the reproduce/ folder in it.", show_default=False),
    ],
    source: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER for every input that has to be named.", show_default=False)
    ] = None,
    data: Data = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="The judge, as for audit, if it is on a server.", show_default=False)
    ] = None,
    judge_key: JudgeKey = None,
    device: Device = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("reproduced"),
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Compare inputs and environment; run and write nothing.")
    ] = False,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Make published results again and say what differs."""


@app.command()
@carried_out_by("report:compare")
def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Folder of a run.", show_default=False)],
    after: Annotated[
        list[Path], typer.Argument(metavar="AFTER...", help="Folders of runs of edited models.", show_default=False)
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the edit in the results, once for every AFTER; `edit` by default, and with several AFTER the "
            "names of their runs.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results.json and the report.", show_default=False)
    ] = None,
    pivot: Pivot = "en",
    grouping: Grouping = None,
    as_json: Json = False,
) -> None:
    """Compare runs of the same prompts, each with the first."""


@app.command()
@carried_out_by("report:report")
def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder that audit, evaluate, compare or quickstart wrote.", show_default=False
        ),
    ],
    pivot: Annotated[str, typer.Option(help="Language that an audit compares the others with.")] = "en",
    grouping: Grouping = None,
    as_json: Json = False,
) -> None:
    """Build the report of a folder anew, as report/index.html in it."""


@app.command()
@carried_out_by("publish:card")
def card(
    model: Model,
    results: Annotated[
        Path | None, typer.Option(help="Folder of an evaluation of this model.", show_default=False)
    ] = None,
    licence: Licence = None,
    licence_name: LicenceName = None,
    as_json: Json = False,
) -> None:
    """Build the model card of an output anew."""


@app.command()
@carried_out_by("publish:push")
def push(
    model: Model,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub.", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="Let everybody read it; private by default.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; write nothing, contact nobody.")
    ] = False,
    licence: Licence = None,
    licence_name: LicenceName = None,
    with_report: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an evaluation of this model: send its results, report (which shows answers whose verdict "
            "changed) and reproduce folder too.",
            show_default=False,
        ),
    ] = None,
    with_answers: Annotated[
        bool, typer.Option("--with-answers", help="Send all answers of that evaluation too.")
    ] = False,
    with_places: Annotated[
        bool, typer.Option("--with-places", help="Send files that name folders or the name of this machine.")
    ] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Send files with what looks like a key and is none, as you have seen.")
    ] = False,
    token_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with a token; by default the one of `hf auth login`.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Publish an output on the hub; resumes if interrupted."""


@app.command()
@carried_out_by("chat:chat")
def chat(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="Folder of a model.", show_default=False)],
    after: Annotated[
        Path | None, typer.Argument(metavar="[AFTER]", help="Folder of another one.", show_default=False)
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.", show_default=False)] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the conversation to this file, as HTML.", show_default=False)
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Talk to a model, or to two side by side; from a pipe, a prompt a line."""


@app.command()
@carried_out_by("doctor:doctor")
def doctor(as_json: Json = False) -> None:
    """Show what is installed, what each missing extra would bring, and what this machine has."""


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from polysafe.cli.console import print_json
    from polysafe.recipe.each import recipes_schema

    print_json(recipes_schema())


def main() -> NoReturn:
    """Entry point of the `polysafe` command."""
    for sent in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(sent) is signal.SIG_DFL:  # `nohup` ignores hanging up
            signal.signal(sent, _terminate)
    open_streams()
    code: Any = DEFECT
    try:
        app(prog_name="polysafe")
    except SystemExit as end:
        code = end.code
    except Exception as error:  # noqa: BLE001  the last place that can ask for a report
        code = end_by(error)
        if code is None:
            error.add_note("This is a defect of polysafe. Please report it with the lines above.")
            note("".join(traceback.format_exception(error)).rstrip("\n"))
            code = DEFECT
    sys.exit(finish(code))


def _terminate(sent: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(sent)
