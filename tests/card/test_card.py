"""The model card: what it says, that the hub reads it, and that no text in it acts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from hypothesis import given, settings

from polysafe.card.card import render_card, unmeasured
from polysafe.card.data import Card, CardMethod, CardSource
from polysafe.card.meta import front_matter, model_index
from polysafe.checkpoint.hub import HubId
from polysafe.checkpoint.licence import Licence
from polysafe.errors import CheckpointError, DataError
from polysafe.methods.layer_swap import LayerSwap
from tests.attacks.answers import ANSWERS
from tests.card.cards import COMMIT, card, metadata, results
from tests.text.test_markdown import MARKUP, hostile, tokens

METADATA = {
    *("language", "library_name", "pipeline_tag", "base_model", "base_model_relation", "tags", "model-index"),
}
FORBIDDEN = {"html_block", "html_inline", "image", "s_open"}


def body(text: str) -> str:
    """The card without its metadata, as the hub cuts it."""
    return ModelCard(text).text


def paragraphs(text: str) -> str:
    """A card on one line, as readers read it."""
    return " ".join(text.split())


def test_metadata_is_what_the_hub_reads() -> None:
    shown = replace(card("expert"), licence="apache-2.0", results=results())
    data = metadata(render_card(shown))
    assert data["language"] == ["sw", "zh", "bn"]
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert data["base_model"] == ["org/base"]
    assert data["base_model_relation"] == "merge"
    assert data["tags"] == ["polysafe", "safety", "multilingual", "merge", "expert"]
    assert set(data.to_dict()) == {*METADATA, "license"}


def test_every_measured_rate_is_in_the_model_index_and_survives_the_hubs_own_reading() -> None:
    shown = replace(card("expert"), name="team/model", results=results())
    index = model_index(shown)
    assert index is not None
    name, found = model_index_to_eval_results(index)
    assert name == "team/model"
    assert shown.results is not None
    assert len(found) == len(shown.results.rows)
    for row in shown.results.rows:
        (one,) = [r for r in found if r.metric_type == row.metric and r.dataset_config == row.language]
        assert one.metric_value == pytest.approx(row.after, abs=1e-6)
        assert f"n = {row.n}" in str(one.metric_name)
        assert one.metric_args is not None
        assert one.metric_args["n"] == row.n
        assert one.metric_args["low"] == pytest.approx(row.after_low, abs=1e-6)
        assert one.metric_args["before"] == pytest.approx(row.before, abs=1e-6)
    sets = {r.metric_type: r.dataset_type for r in found}
    assert sets["unsafe"] == "multijail"
    assert sets["over_refusal"] == sets["harmless_invalid"] == "xstest"
    assert sets["capability.mgsm"] == "mgsm"
    again = eval_results_to_model_index(name, found)
    assert model_index_to_eval_results(again) == (name, found)
    read = metadata(render_card(shown))
    assert read.eval_results == found
    assert ModelCardData(model_name=name, eval_results=found).to_dict()["model-index"] == again


def test_a_small_p_value_is_small_and_not_zero() -> None:
    (row, *_) = results().rows
    tiny = replace(results(), rows=(replace(row, p_value=1.23456789e-13, p_adjusted=4e-13),))
    found = metadata(render_card(replace(card(), results=tiny))).eval_results
    assert found is not None
    (one,) = found
    assert one.metric_args is not None
    assert one.metric_args["p_value"] == pytest.approx(1.23457e-13, rel=1e-9)
    assert one.metric_args["p_adjusted"] == 4e-13


def test_a_card_without_results_says_so() -> None:
    text = render_card(card())
    assert "Nothing has been measured yet" in text
    assert list(unmeasured(card())) == [
        "Nothing was measured: neither safety, nor over-refusal, nor ability, in any language."
    ]
    assert "model-index" not in text


def test_a_card_with_results_says_what_was_not_measured() -> None:
    found = results()
    few = replace(found, rows=tuple(row for row in found.rows if row.metric == "unsafe"), judge_errors=())
    said = " ".join(unmeasured(replace(card(), results=few)))
    assert "Over-refusal" in said
    assert "Ability" in said
    assert "`mgsm`" in said
    assert "`bn`" in said
    assert "error of the judge" in said
    all_of_it = " ".join(unmeasured(replace(card(), results=found)))
    assert "Over-refusal" not in all_of_it
    assert "error of the judge" not in all_of_it


def test_results_are_shown_with_n_and_intervals_before_and_after() -> None:
    text = render_card(replace(card(), results=results()))
    assert "| `sw` | Unsafe | 50 → 10 % |".replace(" %", "\N{NARROW NO-BREAK SPACE}%") in text
    line = next(line for line in text.splitlines() if line.startswith("| `sw` | Unsafe"))
    assert " 48 |" in line
    assert "36–64 → 5–22" in line
    assert "90 % (80–95)" in text
    for heading in ("### Harmful prompts", "### Harmless prompts", "### Ability"):
        assert heading in text


def test_origins_hashes_and_paper_are_shown() -> None:
    text = render_card(card())
    assert f"[`org/base`](https://huggingface.co/org/base/tree/{COMMIT}) at `{COMMIT}`" in text
    assert "d" * 64 in text
    assert "c" * 64 in text
    assert LayerSwap.citation in text


def test_methods_that_ship_have_a_paper() -> None:
    from polysafe.methods.registry import names, resolve

    for name in names():
        assert re.search(r"https://(arxiv\.org/abs|doi\.org)/\d", resolve(name).citation)
        assert all(label.partition(".")[0] == name for label in resolve(name).titles)


def test_toy_models_are_called_so_first() -> None:
    text = paragraphs(body(render_card(replace(card(), toy=True))))
    assert "Toy model. Not for use, and no evidence" in text[:150]
    assert "Toy" not in render_card(card())


APACHE, MIT = (Licence(name, name, "README.md") for name in ("apache-2.0", "mit"))


@pytest.mark.parametrize(
    ("stated", "chosen", "settled"),
    [
        ([(APACHE,), (APACHE,)], None, "apache-2.0"),
        ([(APACHE,), (MIT,)], None, None),
        ([(APACHE,), ()], None, None),
        ([(APACHE, MIT)], None, None),
        ([(APACHE,), (Licence(None, "other", "README.md"),)], None, None),
        ([(APACHE,), (MIT,)], "mit", "mit"),
        ([(APACHE,), (APACHE,)], "other", "other"),
    ],
)
def test_licences_that_differ_or_are_unknown_are_asked_for(
    stated: list[tuple[Licence, ...]], chosen: str | None, settled: str | None
) -> None:
    sources = tuple(CardSource(f"s{i}", "x", (), {}, licences) for i, licences in enumerate(stated))
    shown = replace(card(), sources=sources, licence=chosen)
    assert shown.settled_licence == settled
    assert (shown.licence_question is None) == (settled is not None)
    assert metadata(render_card(shown)).get("license") == settled
    if settled is None:
        assert "**Not settled.**" in render_card(shown)


@settings(max_examples=30, deadline=None)
@given(hostile)
def test_no_text_acts(text: str) -> None:
    shown = replace(card(text), results=results(text), name=text)
    shown = replace(shown, methods=(*shown.methods, CardMethod(text, text, {text: text})))
    written = render_card(shown)
    head = front_matter(shown)
    assert written.startswith(head)
    assert [line for line in head.splitlines() if line.strip() == "---"] == ["---", "---"]
    read = ModelCard(written)
    assert set(metadata(written).to_dict()) == METADATA
    assert read.text == written[len(head) :]
    found = tokens(read.text)
    assert not {token.type for token in found} & FORBIDDEN
    links = [str(token.attrs["href"]) for token in found if token.type == "link_open"]
    assert set(links) == {f"https://huggingface.co/org/base/tree/{COMMIT}"}
    headings = [token.tag for token in found if token.type == "heading_open"]
    assert headings == [token.tag for token in tokens(body(render_card(plain()))) if token.type == "heading_open"]


def plain() -> Card:
    return replace(card("x"), results=results("x"))


def test_without_a_recipe_the_options_do_not_act_either() -> None:
    kinds = [token.type for token in tokens(body(render_card(card("x", recipe=None))))]
    for text in [*MARKUP, *(case.text[:5000] for case in ANSWERS.values())]:
        found = [token.type for token in tokens(body(render_card(card(text, recipe=None))))]
        assert not set(found) & FORBIDDEN, text
        assert found.count("heading_open") == kinds.count("heading_open"), text


@settings(max_examples=50)
@given(hostile)
def test_data_of_a_card_is_read_back(text: str) -> None:
    shown = replace(card(text), results=results(text))
    data = shown.to_json()
    data.decode("ascii")
    again = Card.from_json(data, "card.json")
    assert again.to_json() == data
    assert render_card(again) == render_card(shown)


@pytest.mark.hostile("report")
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"polysafe_card": 2}', b'{"polysafe_card": 1}', b"\xff"])
def test_data_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        Card.from_json(data, "card.json")


def test_hub_ids_that_are_none_are_refused() -> None:
    for name, commit in (("org/base)](x", COMMIT), ("base", COMMIT), ("org/base", "main"), ("орг/base", COMMIT)):
        with pytest.raises(CheckpointError):
            HubId(name, commit)
    bad = card().to_json().replace(b'"id": "org/base"', b'"id": "org/base)](https://evil.example)"')
    with pytest.raises((CheckpointError, DataError)):
        Card.from_json(bad, "card.json")


def test_what_reads_like_a_number_stays_a_text() -> None:
    shown = replace(card("no"), asked={"languages": ("no", "on")})
    assert metadata(render_card(shown))["language"] == ["no", "on"]
    assert not re.search(r"^- no$", front_matter(shown), re.MULTILINE)
