"""What `make audit` and `make release` say of packages: nothing passes that was not looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.supply import closure, found_by, only, refused


@pytest.mark.parametrize(
    "text",
    [
        "MIT",
        "Apache Software License; BSD License",
        "MPL-2.0 AND MIT",
        "GPL-3.0 OR MIT",
        "MIT License\n\nCopyright of somebody, not the GPL",
    ],
)
def test_licences_that_are_allowed(text: str) -> None:
    assert refused({"one": text}) == {}


@pytest.mark.parametrize(
    "text",
    ["UNKNOWN", "", "GPL-3.0", "MIT AND AGPL-3.0", "LGPLv2+; MIT License", "Own\nMIT", "GPL-2.0 OR LGPL-3.0"],
)
def test_others_need_a_reason(text: str) -> None:
    assert refused({"one": text}) == {"one": text}
    assert refused({"one": text}, {"one": "because"}) == {}


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


FINE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("text", "needed", "fine"),
    [
        (report(FINE), 1, True),
        (report(FINE), 2, False),
        (report(FINE, BAD), 2, False),
        (report(FINE, SKIPPED), 2, False),
        (report(SKIPPED, SKIPPED), 2, None),
        (report(), 0, None),
        ("", 1, None),
        ("No known vulnerabilities found", 1, None),
        ("[]", 1, None),
    ],
)
def test_what_was_not_looked_up_is_not_well(text: str, needed: int, fine: bool | None) -> None:
    lines, found = found_by(text, needed)
    assert found is fine
    assert ("b 2: CVE-1" in lines) == (needed == 2 and "CVE-1" in text)
    assert ("not looked up: c" in lines) == ("skip_reason" in text and fine is not None)


def test_what_polysafe_needs_is_looked_at_and_nothing_else() -> None:
    needed = closure()
    assert {"torch", "pydantic", "typing-extensions", "huggingface-hub"} <= needed.keys()
    assert not {"pytest", "ruff", "polysafe", "mypy"} & needed.keys()


def test_a_bill_of_some_packages() -> None:
    names = ("root", "kept", "also", "dropped")
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": name.title(), "bom-ref": name} for name in names[1:]],
        "dependencies": [
            {"ref": "root", "dependsOn": ["kept", "dropped"]},
            {"ref": "kept", "dependsOn": ["also"]},
            {"ref": "dropped", "dependsOn": ["kept"]},
            {"ref": "also"},
        ],
    }
    assert only(bill, ["kept", "also"]) == {
        **bill,
        "components": bill["components"][:2],
        "dependencies": [{"ref": "root", "dependsOn": ["kept"]}, *bill["dependencies"][1:2], {"ref": "also"}],
    }
