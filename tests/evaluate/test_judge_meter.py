"""Validation by a judge: it is tried out before a model is asked."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import pytest

from polysafe.errors import ResourceError
from polysafe.evaluate.judge_meter import JudgeMeter
from polysafe.judge.spec import parse_judge
from tests.evaluate.fakes import prompt_set


def test_a_judge_that_nobody_runs_is_found_out_before_a_model_is_asked() -> None:
    no_model = cast(Any, None)
    with ExitStack() as stack:
        judge = parse_judge("multijail=j@http://127.0.0.1:1/v1")
        meter = JudgeMeter(prompt_set().prompts, judge, stack, template="chat", max_tokens=8)
        with pytest.raises(ResourceError, match=r"j@http://127.0.0.1:1/v1: the judge llm.multijail gave no verdict"):
            meter.read(no_model, ["en"])
