"""A real cluster of two machines on this one, each with one processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from polysafe.cluster.pool import Cluster

BARE = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""The first machine without what looks after it from outside, which takes as much time as the work."""


@pytest.fixture(scope="package")
def machines() -> Iterator[Any]:
    """Ray's own cluster for tests, whose machines can be taken away."""
    utils = pytest.importorskip("ray.cluster_utils", reason="ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by itself a busy machine leaves nothing to the cluster
        made = utils.Cluster(initialize_head=True, head_node_args=BARE)
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture(scope="package")
def cluster(machines: Any) -> Iterator[Cluster]:
    """What a user names to work there. The connection is made once: processes that imported torch are used again."""
    chosen = Cluster(machines.address)
    with chosen.connected():
        yield chosen
