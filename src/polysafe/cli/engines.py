"""Where work is done: in this process, or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polysafe.errors import RecipeError

if TYPE_CHECKING:
    from polysafe.cluster.pool import Cluster

ENGINES = ("local", "ray")


def cluster_of(engine: str, address: str | None, workers: int | None = None, gpus: float = 0.0) -> Cluster | None:
    """The cluster that options name; None for this process.

    Raises:
        RecipeError: There is no such engine, or what belongs to a cluster is named without one.
    """
    if engine not in ENGINES:
        raise RecipeError(f"there is no engine {engine!r}", remedy=f"engines: {', '.join(ENGINES)}")
    if engine == "ray":
        import ray  # noqa: F401 (where it is not installed, that is told before anything long begins)

        from polysafe.cluster.pool import Cluster

        return Cluster(address, workers, gpus=gpus)
    named = {"--address": address is not None, "--workers": workers is not None, "--gpus": gpus > 0}
    if any(named.values()):
        option = next(name for name, there in named.items() if there)
        raise RecipeError("belongs to a cluster, and the engine is local", where=option, remedy="add --engine ray")
    return None
