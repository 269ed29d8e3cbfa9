"""Text from outside stays text, whatever it is: told by a parser that reads HTML and tables."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from polysafe.text.markdown import Prose, block, inline, one_line, table
from polysafe.text.readable import NOTHING

# The answers of `tests/attacks` are not among them: each is shown on a whole card there.
MARKUP = [
    *(
        "`",
        "``",
        "` `` ```",
        "a`b",
        "`a",
        "a`",
        "\\",
        "\\`",
        "`\\",
        "\\|",
        "|",
        "||",
        "a|b`c|d",
        " ",
        "  ",
        " a ",
        "\n",
    ),
    *(
        "```\n<b>x</b>\n```",
        "~~~\nx",
        "\n\n# heading",
        "\n---\n",
        "\n- item",
        "\n> quote",
        "\n    code",
        "\n| a |\n|---|",
    ),
    *(
        "![x](https://evil.example/a.png)",
        "[x](javascript:alert(1))",
        "<https://evil.example>",
        "[a]: https://x.example",
    ),
    *(
        "https://evil.example",
        "www.evil.example",
        "a@evil.example",
        "@somebody",
        "#1",
        ":smile:",
        "$x^2$",
        "$$x$$",
        "[^1]",
    ),
    *("**bold** _it_ ~~gone~~", "&lt;b&gt; &#60;", "<!-- comment", "<?php ?>", "<![CDATA[", "<b", "</td></tr></table>"),
]
hostile = st.one_of(
    st.sampled_from(MARKUP),
    st.text(alphabet=st.sampled_from("`|\\<>&![]()*_~#-+=:/ \n\t\r\"'a1$@^{}\u2028\u202e"), max_size=40),
    st.lists(st.sampled_from(MARKUP), max_size=4).map("".join),
    st.text(max_size=60),
)
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OWN = {"paragraph_open", "paragraph_close", "inline", "text", "code_inline"}


def tokens(text: str) -> list[Token]:
    return [part for token in MARKDOWN.parse(text) for part in (token, *(token.children or ()))]


def shown(text: str) -> str:
    """What a reader sees of an inert text: code spans lose one space at both ends."""
    return one_line(text) if one_line(text).strip() else NOTHING


@given(hostile)
@example("a" * 10_000)
def test_a_text_is_one_code_span(text: str) -> None:
    found = tokens(f"Before {inline(text)} after.")
    assert {token.type for token in found} <= OWN
    content = [token.content for token in found if token.type == "code_inline"] or [NOTHING]
    assert content == [shown(text)]
    assert found[1].content.startswith("Before ")
    assert found[1].content.endswith(" after.")


@given(hostile, hostile)
def test_two_texts_in_one_paragraph_do_not_meet(one: str, two: str) -> None:
    found = tokens(f"{inline(one)} and {inline(two)}")
    assert {token.type for token in found} <= OWN
    wanted = [shown(text) for text in (one, two) if shown(text) != NOTHING]
    assert [token.content for token in found if token.type == "code_inline"] == wanted


@given(hostile, hostile)
def test_a_text_is_one_cell(one: str, two: str) -> None:
    found = tokens(table(("first", "second"), [(one, two), (1, Prose("own"))]))
    assert [token.type for token in found].count("td_open") == 4
    assert [token.type for token in found].count("tr_open") == 3
    assert not {token.type for token in found} & {"html_block", "html_inline", "link_open", "image"}
    cells = [token.content for token in found if token.type in ("code_inline", "text")]
    assert cells == ["first", "second", shown(one), shown(two), "1", "own"]


@given(hostile)
@pytest.mark.parametrize("language", ["", "yaml"])
def test_a_block_ends_where_it_ends(language: str, text: str) -> None:
    kinds = [token.type for token in tokens(f"{block(text, language)}\n\nAfter.")]
    assert kinds == ["fence", "paragraph_open", "inline", "text", "paragraph_close"]


@given(hostile)
def test_nothing_reaches_the_display(text: str) -> None:
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", inline(text) + block(text)
    )
    assert "\n" not in inline(text)


def test_own_text_and_numbers_stay_as_they_are() -> None:
    assert inline(Prose("**own**")) == "**own**"
    assert inline(3) == "3"
    assert inline(0.5) == "0.5"
    assert inline(True) == "`True`"
    assert inline("") == NOTHING
    assert "more characters" in inline("x" * 1000)
