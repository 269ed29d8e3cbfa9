"""How commands are declared: arguments and options that several have, and what carries a command out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from polysafe.cli.console import allow, hush

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).", show_default=False)]
Recipes = Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="Recipe files (YAML).", show_default=False)]
Again = Annotated[
    bool,
    typer.Option(
        "--read-again", help="Read weights again that were read before, instead of believing their sizes and times."
    ),
]
EditFile = Annotated[
    Path, typer.Argument(metavar="EDIT", help="Folder of an edit, or its edit.json.", show_default=False)
]
Engine = Annotated[str, typer.Option(help="Where the work is done: local, or ray for a cluster.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="For ray: HOST:PORT of the cluster; by default RAY_ADDRESS, or else one on this machine.",
        show_default=False,
    ),
]
Gpus = Annotated[float, typer.Option(help="For ray: accelerators that a process takes; of 0.25 four share one.", min=0)]
Nodes = Annotated[
    int | None,
    typer.Option(help="Decide nothing: say from headers what it takes on so many machines.", min=1, show_default=False),
]
Disk = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="For --nodes: bytes a second of the storage, as 2GB; 300MB by default.",
        show_default=False,
    ),
]
Network = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="For --nodes: bytes a second to each machine.", show_default=False),
]
Cores = Annotated[
    int | None,
    typer.Option(help="For --nodes: cores of a machine; those of this one by default.", min=1, show_default=False),
]
Rate = Annotated[float | None, typer.Option(help="For --nodes: dollars a machine and hour.", min=0, show_default=False)]
Asked = Annotated[
    str | None,
    typer.Option(
        "--audit",
        metavar="PROMPTSxLANGUAGESxTOKENS",
        help="For --nodes: also an audit of every output, for example 1000x100x256.",
        show_default=False,
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(help="For --audit: tokens a second of one machine, as measured or stated.", min=0, show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)]
Data = Annotated[Path | None, typer.Option(help="Folder with a folder per set.", show_default=False)]
Limit = Annotated[int | None, typer.Option(help="Parallel rows of every set.", min=1, show_default=False)]
Pivot = Annotated[str, typer.Option(help="Language that the others are compared with.")]
MaxTokens = Annotated[
    int | None, typer.Option(help="Most new tokens of an answer; 256 by default.", min=1, show_default=False)
]
Device = Annotated[str | None, typer.Option(help="Where models run, for example cuda.", show_default=False)]
JudgeDevice = Annotated[str | None, typer.Option(help="Where it runs, for example cuda.", show_default=False)]
InspectLog = Annotated[
    Path | None, typer.Option("--inspect-log", help="Also write Inspect logs into this folder.", show_default=False)
]
Calibration = Annotated[
    Path | None, typer.Option(help="Measured error of the judge, to correct rates by.", show_default=False)
]
Translate = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="FOLDER or NAME@URL of a translator: judge answers as they are and in English.",
        show_default=False,
    ),
]
Grouping = Annotated[
    str | None,
    typer.Option(
        help="Whose resource levels languages are shown in: multijail or soteria; by default the one that knows most.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="Type that the asked model is computed in: F32, BF16 or F16; on processors F32 by default.",
        show_default=False,
    ),
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a model that polysafe wrote.", show_default=False)
]
Licence = Annotated[
    str | None,
    typer.Option("--license", help="The hub's identifier of the licence, for example apache-2.0.", show_default=False),
]
LicenceName = Annotated[
    str | None,
    typer.Option("--license-name", help="Name of a licence that is `other` on the hub.", show_default=False),
]
Key = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help="Environment variable with a key that the recipe may have sent to a server; NAME@HOST for one host alone.",
        show_default=False,
        callback=allow,
    ),
]
_OF_JUDGES = "Environment variable with the key of the servers that are named by --judge."
JudgeKey = Annotated[str | None, typer.Option("--judge-key", help=_OF_JUDGES, show_default=False)]
OnlyKey = Annotated[str | None, typer.Option("--judge-key", "--key", help=_OF_JUDGES, show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.", callback=hush)]

Declared = Callable[..., None]


def carried_out_by(place: str) -> Callable[[Declared], Declared]:
    """Makes a declaration a command: what was given goes by name to a function of a module of the command line.

    Args:
        place: `module:function`.
    """
    module, _, name = place.partition(":")

    def command(declared: Declared) -> Declared:
        @wraps(declared)
        def call(**given: Any) -> None:
            # what begins with a line has had its effect when it was read
            kept = {option: value for option, value in given.items() if not option.startswith("_")}
            getattr(import_module(f"polysafe.cli.commands.{module}"), name)(**kept)

        return call

    return command


def listed(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
