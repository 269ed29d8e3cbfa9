"""Errors of validation in the words of a recipe: all of them, in the order of the file, each with what to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError, field_validator

from polysafe.errors import RecipeError
from polysafe.files.recipe_errors import explain, problem
from polysafe.files.yaml_lines import Document, read_yaml


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Home(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: Annotated[float, Field(gt=0)] = 1.0
    door: tuple[str, ...] | bool = True
    rooms: dict[Annotated[str, Field(pattern="^[a-z]+$")], int] = {}
    pet: Annotated[Cat | Dog, Discriminator("kind")] | None = None
    colours: list[str] = []

    @field_validator("colours")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for place, colour in enumerate(value):
            if colour == "beige":
                raise problem("no beige", "take red", at=(place,))
            if colour == "grey":
                raise ValueError("grey is sad")
        return value


def explained(data: dict[str, Any], document: Document | None = None) -> RecipeError:
    with pytest.raises(ValidationError) as caught:
        Home.model_validate(data)
    return explain(caught.value, data, document, lambda _data, path: () if path else tuple(Home.model_fields))


@pytest.mark.parametrize(
    ("data", "text", "remedy"),
    [
        ({}, "'name' is missing", None),
        ({"name": 5}, "name: must be a valid string, not 5", None),
        ({"name": ["a"]}, "name: must be a valid string, not a list", None),
        ({"name": {"a": 1}}, "name: must be a valid string, not a mapping", None),
        ({"name": "x", "size": "big"}, "size: must be a valid number, not 'big'", None),
        ({"name": "x", "size": -1}, "size: must be greater than 0, not -1", None),
        ({"name": "x", "rooms": 5}, "rooms: must be a mapping, not 5", None),
        ({"name": "x", "rooms": {"A1": 1}}, "rooms: must match pattern '^[a-z]+$', not 'A1'", None),
        ({"name": "x", "nme": 1}, "unknown key 'nme'", "did you mean 'name'?"),
        ({"name": "x", "zzz": 1}, "unknown key 'zzz'", "known here: name, size, door, rooms, pet, colours"),
        ({"name": "x", "pet": {"kind": "dgo"}}, "pet.kind: there is no kind 'dgo'", "did you mean 'dog'?"),
        ({"name": "x", "pet": {"kind": "zebra"}}, "pet.kind: there is no kind 'zebra'", "one of cat, dog"),
        ({"name": "x", "pet": {}}, "pet: 'kind' is missing", None),
        ({"name": "x", "pet": {"kind": "cat", "lives": "x"}}, "pet.lives: must be a valid integer, not 'x'", None),
        ({"name": "x", "colours": ["red", "beige"]}, "colours[1]: no beige", "take red"),
        ({"name": "x", "colours": ["grey"]}, "colours: grey is sad", None),
    ],
)
def test_a_mistake_is_told_by_its_path(data: dict[str, Any], text: str, remedy: str | None) -> None:
    error = explained(data)
    assert (error.problem, error.remedy) == (text, remedy)


def test_complaints_of_alternatives_about_one_value_are_one() -> None:
    told = explained({"name": "x", "door": 5}).problem
    assert told.startswith("door: must be a list, not 5 or must be a valid boolean")
    assert told.count("door") == 1


def test_long_values_are_cut() -> None:
    shown = explained({"name": "x", "size": "a" * 500}).problem
    assert shown.endswith("aaa...")
    assert len(shown) < 150


def test_mistakes_come_in_the_order_of_the_file_each_with_its_line() -> None:
    document = read_yaml("size: -1\ncolours: [beige]\nnme: 1\nname: 5\n", "home.yaml")
    error = explained(document.value, document)  # type: ignore[arg-type]
    places = [line.split()[0] for line in str(error).splitlines() if line.startswith("home.yaml:")]
    assert places == ["home.yaml:1:", "home.yaml:2:", "home.yaml:3:", "home.yaml:4:"]
    assert "take red" in str(error)
    assert "did you mean 'name'?" in str(error)


def test_beyond_ten_mistakes_are_counted() -> None:
    error = explained({"name": "x", **{f"zz{number}": 1 for number in range(12)}})
    assert str(error).count("unknown key") == 10
    assert str(error).endswith("and 2 more problems")
