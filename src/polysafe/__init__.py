"""Make an open-weight language model as safe in every language as it is in English, by editing its weights.

    >>> import polysafe
    >>> recipe = polysafe.load_recipe("recipe.yaml")
    >>> polysafe.plan(recipe).decisions
    >>> polysafe.run(recipe).output
    >>> polysafe.Run.load("results").table(metric="unsafe")

Names are imported when they are first used: `import polysafe` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from polysafe._version import __version__

if TYPE_CHECKING:
    from polysafe.checkpoint.verify import verify_output as verify
    from polysafe.edits.edit import Edit
    from polysafe.engine.plan import make_plan as plan
    from polysafe.errors import PolysafeError
    from polysafe.evaluate.compare import compare_runs as compare
    from polysafe.recipe.each import load_recipes
    from polysafe.recipe.recipe import Recipe, load_recipe, make_recipe, parse_recipe
    from polysafe.report.notebook import Run
    from polysafe.workflows.audit import audit
    from polysafe.workflows.evaluate import evaluate_recipe
    from polysafe.workflows.run import run_recipe as run
    from polysafe.workflows.run import run_recipes

_PLACES = {
    "Edit": ("polysafe.edits.edit", "Edit"),
    "PolysafeError": ("polysafe.errors", "PolysafeError"),
    "Recipe": ("polysafe.recipe.recipe", "Recipe"),
    "Run": ("polysafe.report.notebook", "Run"),
    "audit": ("polysafe.workflows.audit", "audit"),
    "compare": ("polysafe.evaluate.compare", "compare_runs"),
    "evaluate_recipe": ("polysafe.workflows.evaluate", "evaluate_recipe"),
    "load_recipe": ("polysafe.recipe.recipe", "load_recipe"),
    "load_recipes": ("polysafe.recipe.each", "load_recipes"),
    "make_recipe": ("polysafe.recipe.recipe", "make_recipe"),
    "parse_recipe": ("polysafe.recipe.recipe", "parse_recipe"),
    "plan": ("polysafe.engine.plan", "make_plan"),
    "run": ("polysafe.workflows.run", "run_recipe"),
    "run_recipes": ("polysafe.workflows.run", "run_recipes"),
    "verify": ("polysafe.checkpoint.verify", "verify_output"),
}

__all__ = [
    "Edit",
    "PolysafeError",
    "Recipe",
    "Run",
    "__version__",
    "audit",
    "compare",
    "evaluate_recipe",
    "load_recipe",
    "load_recipes",
    "make_recipe",
    "parse_recipe",
    "plan",
    "run",
    "run_recipes",
    "verify",
]


def __getattr__(name: str) -> object:
    try:
        module, attribute = _PLACES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
