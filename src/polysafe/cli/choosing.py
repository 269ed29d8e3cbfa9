"""Commands that choose: `search`, `init` and `repair`. What they do is in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from polysafe.cli.options import (
    Address,
    Data,
    Dtype,
    Engine,
    Json,
    JudgeKey,
    Key,
    Output,
    Quiet,
    Recipe,
    carried_out_by,
)

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of the model that is to be repaired.", show_default=False)
]
Languages = Annotated[
    str, typer.Option(help="Languages to make safe, separated by commas.", prompt="Languages to make safe, sw,bn")
]
Pivot = Annotated[str, typer.Option(help="Language in which the model is safe.")]
Base = Annotated[
    Path | None, typer.Option(help="What the model and its safety expert were tuned from.", show_default=False)
]
Expert = Annotated[
    Path | None,
    typer.Option("--safety-expert", help="A model, or a LoRA adapter, that was tuned to refuse.", show_default=False),
]
Harmful = Annotated[
    Path | None, typer.Option(help="A model, or a LoRA adapter, that was tuned to do harm.", show_default=False)
]
Judge = Annotated[
    list[str] | None,
    typer.Option(help="Judge, as for audit; without one, refusal log-odds decide.", show_default=False),
]
Anchors = Annotated[
    str | None, typer.Option(help="Set or table of harmful prompts that edits are fitted to.", show_default=False)
]
AnchorsHarmless = Annotated[
    str | None, typer.Option(help="Set or table of harmless prompts that edits are fitted to.", show_default=False)
]
Validation = Annotated[
    str, typer.Option(help="Sets or tables of harmful prompts to choose by, with commas.", show_default=False)
]
ValidationHarmless = Annotated[
    str, typer.Option(help="Sets or tables of harmless prompts to choose by, with commas.", show_default=False)
]
Safety = Annotated[
    str, typer.Option(help="Sets or tables of harmful prompts to report on, with commas.", show_default=False)
]
OverRefusal = Annotated[
    str, typer.Option(help="Sets or tables of harmless prompts to report on, with commas.", show_default=False)
]
Capability = Annotated[str, typer.Option(help="Tasks that measure ability, separated by commas.", show_default=False)]
Limit = Annotated[int, typer.Option(help="Parallel rows of every set to choose by.", min=1)]
Template = Annotated[
    Literal["chat", "raw"] | None,
    typer.Option(help="chat, or raw for a base model; as the model has one by default.", show_default=False),
]
MaxTokens = Annotated[
    int | None, typer.Option(help="Most new tokens of an answer that is judged.", min=1, show_default=False)
]
Trials = Annotated[int, typer.Option(help="Most points of each search.", min=1)]
Workers = Annotated[int, typer.Option(help="Processes; each holds the model.", min=1)]
Controls = Annotated[
    int, typer.Option(help="Draws of each random control that what is chosen is compared with.", min=0)
]


@carried_out_by("search:search")
def search(
    recipe: Recipe,
    output: Output,
    trials: Annotated[
        int | None, typer.Option(help="Points to try instead of the recipe's; 100 by default.", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes after which no point is begun.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's.", min=0, show_default=False)] = None,
    workers: Workers = 1,
    engine: Engine = "local",
    address: Address = None,
    controls: Controls = 0,
    data: Data = None,
    _key: Key = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Choose the fields of a recipe that have several values, or go on where it was interrupted."""


@carried_out_by("repair:init")
def init(
    model: Model,
    languages: Languages,
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe to write; it must not be there.")] = Path(
        "recipe.yaml"
    ),
    method: Annotated[
        str | None, typer.Option(help="Method; by default the first that can be tried.", show_default=False)
    ] = None,
    pivot: Pivot = "en",
    base: Base = None,
    safety_expert: Expert = None,
    harmful: Harmful = None,
    judge: Judge = None,
    judge_key: JudgeKey = None,
    anchors: Anchors = None,
    anchors_harmless: AnchorsHarmless = None,
    validation: Validation = "",
    validation_harmless: ValidationHarmless = "",
    safety: Safety = "",
    over_refusal: OverRefusal = "",
    capability: Capability = "",
    data: Data = None,
    limit: Limit = 50,
    template: Template = None,
    dtype: Dtype = None,
    max_tokens: MaxTokens = None,
    _quiet: Quiet = False,
) -> None:
    """Write a first recipe with comments, from what there is."""


@carried_out_by("repair:repair")
def repair(
    model: Model,
    languages: Languages,
    output: Output,
    minutes: Annotated[float, typer.Option(help="Minutes for all searches; reporting comes on top.")] = 30.0,
    trials: Trials = 60,
    workers: Workers = 1,
    controls: Controls = 3,
    pivot: Pivot = "en",
    base: Base = None,
    safety_expert: Expert = None,
    harmful: Harmful = None,
    judge: Judge = None,
    judge_key: JudgeKey = None,
    anchors: Anchors = None,
    anchors_harmless: AnchorsHarmless = None,
    validation: Validation = "",
    validation_harmless: ValidationHarmless = "",
    safety: Safety = "",
    over_refusal: OverRefusal = "",
    capability: Capability = "",
    data: Data = None,
    limit: Limit = 50,
    template: Template = None,
    dtype: Dtype = None,
    max_tokens: MaxTokens = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Try what is possible, make what is shown to help, and report on it; or say why nothing does."""


CHOOSING = (search, init, repair)
"""The commands, in the order of the help."""
