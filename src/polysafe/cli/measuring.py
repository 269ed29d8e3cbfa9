"""`audit` and `evaluate` as they are typed: what is asked of models, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from polysafe.cli.options import (
    Address,
    Calibration,
    Data,
    Device,
    Dtype,
    Engine,
    Gpus,
    InspectLog,
    Json,
    JudgeKey,
    Key,
    Limit,
    MaxTokens,
    Output,
    Pivot,
    Quiet,
    Recipe,
    Translate,
    carried_out_by,
)

Holders = Annotated[
    int | None,
    typer.Option(help="For ray: processes that hold the model; as many as fit by default.", min=1, show_default=False),
]


@carried_out_by("audit:audit")
def audit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder of a model, or NAME@URL of a served one.", show_default=False)
    ],
    output: Output,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND=FOLDER or KIND=NAME@URL, KIND a guard model's family (qwen3guard, …) or a language model's "
            "protocol (multijail, …); `organism` for the toy family. Several vote. Without one, refusals, broken "
            "answers and refusal log-odds are measured, and unsafe answers are not.",
            show_default=False,
        ),
    ] = None,
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Only ask; `polysafe judge run` can judge the answers later.")
    ] = False,
    safety: Annotated[str, typer.Option(help="Sets of harmful prompts, separated by commas.")] = "multijail",
    over_refusal: Annotated[
        str, typer.Option(help="Sets of harmless prompts, separated by commas.", show_default=False)
    ] = "",
    capability: Annotated[
        str, typer.Option(help="Tasks that measure ability, separated by commas: belebele, mgsm, …", show_default=False)
    ] = "",
    attack: Annotated[
        str,
        typer.Option(
            help="Attacks that every prompt is asked under too, separated by commas: prefix_injection, aim, "
            "code_switching, …, or templates of your own, NAME.txt.",
            show_default=False,
        ),
    ] = "",
    languages: Annotated[
        str, typer.Option(help="Languages, separated by commas; all by default.", show_default=False)
    ] = "",
    data: Data = None,
    limit: Limit = None,
    pivot: Pivot = "en",
    template: Annotated[
        Literal["chat", "raw"],
        typer.Option(help="chat, or raw for a base model: it goes on from the prompt as it stands."),
    ] = "chat",
    max_tokens: MaxTokens = None,
    translate: Translate = None,
    calibration: Calibration = None,
    device: Device = None,
    dtype: Dtype = None,
    family: Annotated[
        Path | None,
        typer.Option(help="For an edited toy model: the member that it was made from.", show_default=False),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Environment variable with the key of the model's server.", show_default=False)
    ] = None,
    judge_key: JudgeKey = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Holders = None,
    gpus: Gpus = 0.0,
    inspect_log: InspectLog = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Measure how unsafe one model is in each language."""


@carried_out_by("audit:evaluate")
def evaluate(
    recipe: Recipe,
    output: Output,
    judge: Annotated[
        list[str] | None, typer.Option(help="Judge instead of the recipe's, as for audit.", show_default=False)
    ] = None,
    judge_key: JudgeKey = None,
    calibration: Calibration = None,
    data: Data = None,
    limit: Limit = None,
    pivot: Pivot = "en",
    max_tokens: MaxTokens = None,
    device: Device = None,
    dtype: Dtype = None,
    controls: Annotated[
        int, typer.Option(help="Draws of each random control to make, ask and compare beside the edit.", min=0)
    ] = 0,
    engine: Engine = "local",
    address: Address = None,
    workers: Holders = None,
    gpus: Gpus = 0.0,
    _key: Key = None,
    inspect_log: InspectLog = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Measure what the edits of a recipe change."""


MEASURING = (audit, evaluate)
"""The commands, in the order of the help."""
