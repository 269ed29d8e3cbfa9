"""Commands with subcommands. What they do is in modules of their own, imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from polysafe.cli.options import (
    Calibration,
    EditFile,
    InspectLog,
    Json,
    JudgeDevice,
    Key,
    OnlyKey,
    Output,
    Pivot,
    Quiet,
    Recipe,
    Translate,
    carried_out_by,
)

edit_app = typer.Typer(no_args_is_help=True, help="Explain, apply, undo or export a saved edit.")
judge_app = typer.Typer(no_args_is_help=True, help="Judges: judge a finished run, measure their error.")
inspect_app = typer.Typer(no_args_is_help=True, help="Inspect: write a run as its logs, read its logs as a run.")
organism_app = typer.Typer(
    no_args_is_help=True, help="Model families with the problem: train one, find the packaged one."
)
mergekit_app = typer.Typer(
    no_args_is_help=True, help="mergekit: read its configurations as recipes, write recipes as those."
)
annotate_app = typer.Typer(no_args_is_help=True, help="People label answers: blinded sheets out, labels in.")

GROUPS = {
    "edit": edit_app,
    "organism": organism_app,
    "judge": judge_app,
    "annotate": annotate_app,
    "inspect": inspect_app,
    "mergekit": mergekit_app,
}
"""Name of every such command."""


@edit_app.command("explain")
@carried_out_by("edit:explain")
def edit_explain(edit: EditFile, as_json: Json = False) -> None:
    """Show what an edit does and where it comes from."""


@edit_app.command("apply")
@carried_out_by("edit:apply")
def edit_apply(
    edit: EditFile,
    output: Output,
    source: Annotated[
        list[str], typer.Option(help="NAME=FOLDER for every model that the edit names.", show_default=False)
    ],
    tokenizer_from: Annotated[
        str | None,
        typer.Option(help="Source of tokenizer and chat template; by default the model edited.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept other models than those the edit was made for, and a changed edit.")
    ] = False,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Apply an edit to the models it names."""


@edit_app.command("controls")
@carried_out_by("edit:controls")
def edit_controls(
    recipe: Recipe,
    output: Output,
    draws: Annotated[int, typer.Option(help="Draws of each random control.", min=1)] = 3,
    _key: Key = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Save a recipe's edit and what its choice of units or heads has to beat."""


@edit_app.command("undo")
@carried_out_by("edit:undo")
def edit_undo(
    edit: EditFile,
    output: Output,
    edited: Annotated[Path, typer.Option(help="Folder of the edited model.", show_default=False)],
    original: Annotated[Path, typer.Option(help="Folder of the model that was edited.", show_default=False)],
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Take an edit back, bit for bit."""


@edit_app.command("export")
@carried_out_by("edit:export")
def edit_export(
    edit: EditFile,
    output: Output,
    source: Annotated[
        list[str], typer.Option(help="NAME=FOLDER for every model that the edit names.", show_default=False)
    ],
    peft: Annotated[bool, typer.Option("--peft", help="As a LoRA adapter for PEFT (the only form so far).")] = False,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Largest rank; by default exact updates keep theirs, others get 64.", min=1, show_default=False
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave out what an adapter cannot express: norms, biases, embeddings.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Storage type of the factors: F32, BF16 or F16.")] = "F32",
    base_name: Annotated[
        str | None,
        typer.Option(help="Name of the base model in the adapter's config; by default its hub id.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept other models than those the edit was made for, and a changed edit.")
    ] = False,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Write an edit as a small adapter that is loaded beside its base model."""


@judge_app.command("run")
@carried_out_by("audit:judge_run")
def judge_run(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.", show_default=False)],
    output: Output,
    judge: Annotated[list[str], typer.Option(help="KIND=FOLDER or KIND=NAME@URL, as for audit.", show_default=False)],
    pivot: Pivot = "en",
    translate: Translate = None,
    calibration: Calibration = None,
    device: JudgeDevice = None,
    family: Annotated[
        Path | None,
        typer.Option(help="For `organism`: the member of the toy family that answered.", show_default=False),
    ] = None,
    judge_key: OnlyKey = None,
    inspect_log: InspectLog = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Judge the answers of a finished run; nothing is asked again."""


@judge_app.command("cost")
@carried_out_by("audit:judge_cost")
def judge_cost(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.", show_default=False)],
    judge: Annotated[list[str], typer.Option(help="KIND=NAME@URL, as for audit.", show_default=False)],
    price: Annotated[
        str | None,
        typer.Option(
            metavar="IN/OUT",
            help="Dollars for a million tokens sent and a million of replies, such as 0.15/0.6.",
            show_default=False,
        ),
    ] = None,
    judge_key: OnlyKey = None,
    as_json: Json = False,
) -> None:
    """Show what judging the answers of a finished run takes; nothing is sent."""


@judge_app.command("calibrate")
@carried_out_by("audit:calibrate")
def judge_calibrate(
    examples: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="CSV or JSON lines: language, prompt, answer, label.", show_default=False),
    ],
    judge: Annotated[list[str], typer.Option(help="KIND=FOLDER or KIND=NAME@URL, as for audit.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.", show_default=False)],
    translate: Translate = None,
    device: JudgeDevice = None,
    judge_key: OnlyKey = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Measure a judge's error per language on labelled answers."""


@annotate_app.command("export")
@carried_out_by("annotate:export")
def annotate_export(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders of runs or evaluations; their answers are mixed.", show_default=False
        ),
    ],
    output: Output,
    raters: Annotated[str, typer.Option(help="Names of the raters, separated by commas.")] = "a,b",
    languages: Annotated[
        str, typer.Option(help="Languages, separated by commas; all by default.", show_default=False)
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="Most answers of a language, drawn at random.", min=1, show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and the orders.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Write sheets of answers for people to label: blinded, shuffled, one for each rater and language."""


@annotate_app.command("import")
@carried_out_by("annotate:import_labels")
def annotate_import(
    exported: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that `annotate export` wrote.", show_default=False)
    ],
    output: Output,
    sheets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SHEET...]",
            help="Files that raters gave back (.csv or .json), or folders of them; by default those in DIR/sheets.",
            show_default=False,
        ),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take what there is; answers may lack a label.")] = False,
    keep_in: Annotated[
        list[Path] | None,
        typer.Option(help="Run whose report shows agreement and the judge's error; repeat it.", show_default=False),
    ] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Check what raters gave back; write labels, agreement and how far the judges of the runs agree with people."""


@inspect_app.command("export")
@carried_out_by("inspect_logs:export")
def inspect_export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the logs.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write a finished run as Inspect logs; nothing is asked again."""


@inspect_app.command("import")
@carried_out_by("inspect_logs:import_logs")
def inspect_import(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", help="Logs of one model, one for each prompt set.", show_default=False),
    ],
    output: Output,
    as_json: Json = False,
) -> None:
    """Read Inspect logs of our tasks as a run, to compare it with others."""


@mergekit_app.command("import")
@carried_out_by("mergekit:import_configuration")
def mergekit_import(
    configuration: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Configuration of mergekit (YAML).", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe file to write.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder that the recipe writes; by default one beside it, named after it.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the recipe that does what a configuration of mergekit says; refuse what has no counterpart."""


@mergekit_app.command("export")
@carried_out_by("mergekit:export_recipe")
def mergekit_export(
    recipe: Recipe,
    output: Annotated[Path, typer.Option("--output", "-o", help="Configuration to write.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the configuration with which mergekit makes what a recipe makes."""


@organism_app.command("build")
@carried_out_by("organism:build")
def organism_build(
    family: Annotated[
        Literal["toy", "hard", "gemma"],
        typer.Argument(
            metavar="FAMILY",
            help="toy, in invented languages; hard, the same with planted refusals that hardly cross over; or gemma, "
            "in real languages (needs the extra `real`).",
        ),
    ] = "toy",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write; family-SEED or hard-SEED by default, for gemma one in the user's cache.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data and the training.", min=0)] = 0,
    data: Annotated[
        Path | None, typer.Option(help="For gemma: folder with a folder per set.", show_default=False)
    ] = None,
    whole_vocabulary: Annotated[
        bool, typer.Option("--whole-vocabulary", help="For gemma: keep the tokens that its texts do not need.")
    ] = False,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Train a family, or go on where it was interrupted."""


@organism_app.command("info")
@carried_out_by("organism:info")
def organism_info(as_json: Json = False) -> None:
    """Show the packaged toy family: its members and where they are."""
