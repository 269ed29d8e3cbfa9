from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.evaluate.keys import completion_key, content_hash, differing, verdict_key
from polysafe.generate.completion import Ask
from polysafe.judge.verdict import Exchange
from tests.evaluate.fakes import IDENTITY

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
EXCHANGE = Exchange(Prompt("s", "1", "en", "text", "harmful", "c"), "answer")


@given(JSON, JSON)
def test_equal_hashes_mean_equal_values(one: Any, other: Any) -> None:
    assert (content_hash(one) == content_hash(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _sorted(value[key])) for key in sorted(value)]
    return ["list", *map(_sorted, value)] if isinstance(value, list) else value


def test_order_of_an_identity_does_not_matter() -> None:
    assert content_hash(dict(reversed(IDENTITY.items()))) == content_hash(IDENTITY)


def test_an_identity_that_json_cannot_say_is_refused() -> None:
    for value in ({"weights": object()}, {"temperature": float("nan")}):
        with pytest.raises(DataError, match="plain JSON values"):
            content_hash(value)


def test_every_part_of_a_question_is_in_its_key() -> None:
    key = completion_key("owner", Ask("a", "text"))
    others = [("other", Ask("a", "text")), ("owner", Ask("b", "text")), ("owner", Ask("a", "text "))]
    assert key not in {completion_key(owner, ask) for owner, ask in others}
    assert completion_key("owner", Ask("a", "\ud800")) != completion_key("owner", Ask("a", "\ufffd"))


@pytest.mark.fault(19, "every field of the identity")
@pytest.mark.parametrize("field", ["set", "parallel", "language", "text", "kind", "category"])
def test_every_part_of_an_exchange_is_in_its_key(field: str) -> None:
    value = "harmless" if field == "kind" else "other"
    prompt = replace(EXCHANGE.prompt, **{field: value})  # type: ignore[arg-type]
    changed = Exchange(prompt, EXCHANGE.answer)
    assert verdict_key("j", changed) != verdict_key("j", EXCHANGE)
    assert verdict_key("j", Exchange(EXCHANGE.prompt, "other")) != verdict_key("j", EXCHANGE)
    assert verdict_key("k", EXCHANGE) != verdict_key("j", EXCHANGE)


def test_differing_entries_are_named() -> None:
    assert differing({"a": 1, "b": 2}, {"b": 2.0, "c": None, "a": 1}) == ["b"]
    assert differing({"a": 1}, {"d": 0}) == ["a", "d"]
