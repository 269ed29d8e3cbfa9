from __future__ import annotations

from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.files.yaml_lines import MAX_BYTES, MAX_NODES, Mark, Value, read_yaml, write_yaml


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("-2", -2),
        ("010", 10),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("5GB", "5GB"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    read = read_yaml(text, "r.yaml").value
    assert read == value
    assert type(read) is type(value)


def test_keys_are_texts() -> None:
    assert read_yaml("{1: a, true: b, ~: c, no: d}", "r.yaml").value == {"1": "a", "true": "b", "~": "c", "no": "d"}


def test_places_of_keys_and_values() -> None:
    document = read_yaml("a:\n  - x\n  - b: 1\n    c:   [2, 3]\n", "r.yaml")
    assert document.mark(("a", 0)) == Mark(2, 5)
    assert document.mark(("a", 1, "c"), key=True) == Mark(4, 5)
    assert document.mark(("a", 1, "c")) == Mark(4, 10)
    assert document.mark(("a", 1, "c", 1)) == Mark(4, 14)
    assert document.mark(("a", 1, "absent")) == Mark(3, 5)
    assert document.excerpt(Mark(4, 14)) == "     4 |     c:   [2, 3]\n       |              ^"


def test_excerpt_of_a_long_line_keeps_the_caret_below_its_column() -> None:
    document = read_yaml("a: [" + "x, " * 200 + "zz]", "r.yaml")
    line, caret = document.excerpt(document.mark(("a", 200))).splitlines()
    assert len(line) < 160
    assert line[caret.index("^") :].startswith("zz]")


def test_aliases_are_read() -> None:
    assert read_yaml("a: &x {k: 1}\nb: *x", "r.yaml").value == {"a": {"k": 1}, "b": {"k": 1}}


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "r.yaml:3: duplicate key 'a', already set on line 1"),
        ("a: {b: 1, b: 2}", "r.yaml:1: duplicate key 'b'"),
        ("x: 1\na: !!python/object/apply:os.system [id]", "r.yaml:2: the tag"),
        ("a: !!binary aGk=", "r.yaml:1: the tag"),
        ("a: !!set {b}", "r.yaml:1: the tag"),
        ("a: !custom {b: 1}", "r.yaml:1: the tag '!custom' is not supported"),
        ("a: !!int x", "r.yaml:1: 'x' is not of the type that its tag says"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "r.yaml:3: merge keys"),
        ("? [a]\n: b", "r.yaml:1: a key has to be a single word or text"),
        ("a: 1e999", "r.yaml:1: number out of range"),
        ("a: " + "9" * 5000, "r.yaml:1: number out of range"),
        ("a: *x", "r.yaml:1: not valid YAML: found undefined alias"),
        ("a: [1,\nb: 2", "r.yaml:2: not valid YAML"),
        ("a: 'x", "r.yaml:1: not valid YAML"),
        ("\ta: 1", "r.yaml:1: not valid YAML"),
        ("--- a\n--- b", "r.yaml:2: not valid YAML"),
        ("a: 1\nb: \x07", "r.yaml:2: the character U+0007 is not allowed"),
    ],
)
def test_refusals_have_their_line(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "r.yaml:1: too large or too deep"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)),
            "r.yaml:1: too large or too deep",
        ),
        ("[" * 200_000, "r.yaml:1: more than 32 levels deep"),
        ("{a: " * 100_000, "r.yaml:1: more than 32 levels deep"),
        ("- " * 5000, "r.yaml:1: more than 32 levels deep"),
        ("[" + "x," * MAX_NODES + "]", "r.yaml:1: too large or too deep"),
        ("#" * (MAX_BYTES + 1), "r.yaml: the file is larger than 1 MiB"),
    ],
    ids=["itself", "aliases of aliases", "brackets", "braces", "dashes", "entries", "bytes"],
)
def test_bombs_are_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20) | st.sampled_from(
    [
        "no",
        "1e3",
        "1e-3",
        ".5",
        "~",
        "null",
        "true",
        "0x1",
        "1_000",
        "1:30",
        "2026-01-01",
        "<<",
        "=",
        "- a",
        "",
        " ",
        "&a",
    ]
)
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(TEXTS.filter(lambda key: key != "<<"), children, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read_back(value: Value) -> None:
    assert read_yaml(write_yaml(value), "r.yaml").value == value


@given(VALUES)
def test_what_is_written_means_the_same_to_a_yaml_1_1_parser(value: Value) -> None:
    assert yaml.safe_load(write_yaml(value)) == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RecipeError):
        read_yaml(text, "r.yaml")
