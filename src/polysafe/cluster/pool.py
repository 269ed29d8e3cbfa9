"""A Ray cluster that work is handed to.

Ray starts processes, moves values between machines and does again what a lost process or machine was doing. What is
handed to it are paths and settings, never weights: every machine sees the same folders under the same names. Journals,
caches and everything else that is written line by line stay with the process that asked for the work.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from polysafe.errors import PolysafeError, RecipeError, ResourceError
from polysafe.progress import say

if TYPE_CHECKING:
    from ray import ObjectRef

P = ParamSpec("P")
T = TypeVar("T")

TICK = 0.5
"""Seconds after which work that is waited for is looked after."""
RETRIES = 3
"""How often work is begun again that was lost with a process or a machine; what fails by itself is not."""
_SECONDS = 10.0
"""Seconds in which a cluster has to answer."""
_OWN: dict[str, Any] = {"address": "local", "include_dashboard": False}
"""A cluster for this work, and not one that somebody happens to have started here, which Ray would join by itself."""
_NOWHERE = "http://127.0.0.1:9"
_RESUMES = "run the same command again; what is finished is kept"


@dataclass(frozen=True)
class Cluster:
    """Where the work of a cluster is done, and how much of it one process takes.

    Attributes:
        address: `HOST:PORT` or `ray://HOST:PORT` of a running cluster; by default that of `RAY_ADDRESS`, or else one on
            this machine for as long as the work takes.
        workers: Processes; by default as many as the cluster has processors, or accelerators, for.
        cpus: Processors of a process.
        gpus: Accelerators of a process; a fraction lets several share one.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.gpus < 0 or (self.workers is not None and self.workers < 1):
            raise RecipeError("a process takes one processor at least, and there is one process at least")

    @property
    def placed(self) -> dict[str, Any]:
        """What a process takes, and where it goes, as Ray names it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "scheduling_strategy": "SPREAD"}

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Within it, work can be handed out. A connection that is there already is used, and stays.

        Raises:
            ResourceError: Nobody answers at the address.
        """
        import ray

        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS", "")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask a host that nobody named
        with redirect_stdout(sys.stderr):  # Ray prints what it has to say of lost processes among results
            try:
                _require_answer(address)
                with nullcontext() if address else _asking_nobody():
                    ray.init(
                        **({"address": address} if address else _OWN), log_to_driver=False, logging_level=logging.ERROR
                    )
            except (OSError, RuntimeError, ValueError) as error:
                raise ResourceError(
                    f"no cluster can be had: {_first_line(error)}",
                    where=address or "this machine",
                    remedy="start one with `ray start --head`, and name its address with --address",
                ) from error
            try:
                yield
            finally:
                ray.shutdown()

    def processes(self) -> int:
        """How many processes there are to be.

        Raises:
            ResourceError: The cluster has no room for one.
        """
        import ray

        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = there.get("GPU", 0) // self.gpus if self.gpus else there.get("CPU", 0) // self.cpus
        if room < 1:
            raise ResourceError(
                f"no machine of the cluster has {self.cpus} processors and {self.gpus:g} accelerators free",
                remedy="ask for fewer with --gpus, or start machines that have them",
            )
        return self.workers or int(room)


class RayCrew:
    """Functions are carried out in processes of a cluster; used as `processes.Workers`.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._stack = cluster, ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._cluster.connected())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> ObjectRef[T]:
        """Hands work out."""
        return remote(self._cluster, _called)(partial(function, *args, **kwargs))

    def result(self, task: ObjectRef[T]) -> T:
        """What came of some work.

        Raises:
            PolysafeError: What the work raised.
            ResourceError: It was lost, more often than it is begun again.
        """
        ((_, found),) = finished({task: None})
        return found


def _require_answer(address: str) -> None:
    """Ray tries for many minutes where nobody answers.

    Raises:
        OSError: Nobody does.
    """
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()


def _called(work: Callable[[], T]) -> T:
    return work()


def remote(cluster: Cluster, function: Callable[P, T]) -> Callable[P, ObjectRef[T]]:
    """The function, carried out on the cluster; begun again where its process or its machine is lost."""
    import ray

    made: Any = ray.remote(**cluster.placed, max_retries=RETRIES)(function)
    found: Callable[P, ObjectRef[T]] = made.remote
    return found


def finished(tasks: Mapping[ObjectRef[T], Any], look: Callable[[], None] = lambda: None) -> Iterator[tuple[Any, T]]:
    """(name of a task, its result) in the order in which they end. If one fails, the others are given up.

    Args:
        tasks: Task -> its name.
        look: Called while they are waited for.

    Raises:
        PolysafeError: What a task raised.
        ResourceError: A task was lost, more often than it is begun again.
    """
    import ray

    open_ = dict(tasks)
    try:
        while open_:
            ready, _ = ray.wait([*open_], num_returns=1, timeout=TICK)
            look()
            for task in ready:
                yield open_.pop(task), result(task)
    finally:
        for task in open_:
            ray.cancel(task, force=True)


def result(task: ObjectRef[T]) -> T:
    """The result of a task that has ended.

    Raises:
        PolysafeError: What it raised.
        ResourceError: It was lost, more often than it is begun again.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        found: T = ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, PolysafeError):
            raise error.cause from None
        if isinstance(error.cause, RayError):  # what it was given went away with the process that had it
            raise lost(error.cause) from error
        raise
    except RayError as error:
        raise lost(error) from error
    return found


def lost(error: Exception) -> ResourceError:
    """What is said of work whose process or machine went away."""
    return ResourceError(f"a process of the cluster went away: {_first_line(error)}", remedy=_RESUMES)


@contextmanager
def _asking_nobody() -> Iterator[None]:
    """Within it, processes are started that reach nobody by plain http.

    Ray's own ask clouds whether the machine is theirs (169.254.169.254, metadata.google.internal), also where its
    statistics are turned off.
    """
    from ray.util import get_node_ip_address

    here = f"127.0.0.1,localhost,{get_node_ip_address()}"  # type: ignore[no-untyped-call]  # which they reach each other by
    settings = {"http_proxy": _NOWHERE, "no_proxy": here, "no_grpc_proxy": here}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def told(lines: list[str]) -> None:
    """Says here what was said on the cluster."""
    for line in lines:
        say(line)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
