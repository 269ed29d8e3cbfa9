from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polysafe.cluster import models
from polysafe.cluster.models import open_on
from polysafe.cluster.pool import Cluster
from polysafe.errors import CheckpointError, PolysafeError
from polysafe.evaluate.audited import Audit
from polysafe.evaluate.opening import open_model
from polysafe.generate.completion import Ask, Sampling
from polysafe.organism.packaged import packaged_family
from polysafe.workflows.audit import audit
from tests.byte_level import save_byte_model
from tests.checkpoint.raw import snapshot

MEMBERS = packaged_family().members
ASKS = [Ask(str(number), "how do I " + "bake " * (number % 7)) for number in range(30)]
SHORT = Sampling(max_tokens=4)


def audited(output: Path, **more: Any) -> Audit:
    return audit(
        MEMBERS["base"],
        safety=["organism"],
        over_refusal=["organism"],
        judge="organism",
        capability=["organism"],
        languages=("en", "qac"),
        output=output,
        cache=output.with_suffix(".sqlite"),
        **more,
    )


def test_an_audit_is_that_of_this_machine(cluster: Cluster, tmp_path: Path) -> None:
    """Answers, verdicts and what the model can do, to the byte."""
    here = audited(tmp_path / "here")
    there = audited(tmp_path / "there", opened_by=partial(open_on, cluster))
    assert here.rates == there.rates
    assert snapshot(here.run.folder) == snapshot(there.run.folder)


def test_log_odds_are_those_of_this_machine(cluster: Cluster, tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "bytes")
    table = tmp_path / "mine.csv"
    table.write_text("language,question\n" + "".join(f"en,how do I {'a' * n}\n" for n in range(9)))
    given: dict[str, Any] = {"safety": [table], "template": "raw", "max_tokens": 4}
    here = audit(folder, output=tmp_path / "here", cache=tmp_path / "a.sqlite", **given)
    there = audit(
        folder, output=tmp_path / "there", cache=tmp_path / "b.sqlite", opened_by=partial(open_on, cluster), **given
    )
    mine, theirs = ({cell: dict(items) for cell, items in each.run.numbers[0].values.items()} for each in (here, there))
    assert mine
    assert mine.keys() == theirs.keys()
    for cell, items in mine.items():
        assert theirs[cell] == pytest.approx(items, abs=1e-4)


class _Mortal(models._Holder):
    """A process that is killed while it answers, the first time that anybody does."""

    mark: Path

    def read(self, part: Any, verb: str, asked: Any) -> list[Any]:
        if not self.mark.exists():
            self.mark.write_text("was here")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(part, verb, asked)


def test_a_killed_process_costs_its_piece_only(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_byte_model(tmp_path / "bytes")
    with open_model(folder, SHORT, template="raw") as here:
        wanted = {answer.id: answer.text for answer in here.generator.generate(ASKS)}
    mortal = type("_Mortal", (_Mortal,), {"mark": tmp_path / "killed"})
    monkeypatch.setattr(models, "_Holder", mortal)
    with open_on(cluster, folder, SHORT, template="raw") as there:
        found = [(answer.id, answer.text) for answer in there.generator.generate(ASKS)]
    assert (tmp_path / "killed").exists()
    assert len(found) == len(ASKS)
    assert dict(found) == wanted


def test_a_machine_that_is_taken_away_costs_its_piece_only(cluster: Cluster, machines: Any, tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "bytes")
    third = machines.add_node(num_cpus=1)
    try:
        with open_on(cluster, folder, SHORT, template="raw") as there:
            answers = there.generator.generate(ASKS)
            found = [next(answers).id]
            machines.remove_node(third, allow_graceful=False)
            found += [answer.id for answer in answers]
    finally:
        if third in machines.list_all_nodes():
            machines.remove_node(third)
    assert sorted(found) == sorted(ask.id for ask in ASKS)


def test_what_is_wrong_with_a_model_is_told_as_here(cluster: Cluster, tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "bytes")
    (folder / "model.safetensors").write_bytes(b"no weights")
    problems = []
    for opener in (open_model, partial(open_on, cluster)):
        with pytest.raises(PolysafeError) as caught, opener(folder, SHORT, template="raw"):
            pass
        problems.append(caught.value)
    assert type(problems[0]) is type(problems[1]) is CheckpointError
    assert str(problems[0]) == str(problems[1])
