from __future__ import annotations

from polysafe.files.paths import without_places


def test_values_without_places() -> None:
    value = {
        "path": "/home/alice/data/xstest.csv",
        "windows": "C:\\Users\\alice\\base",
        "relative": "data/xstest.csv",
        "hub": "org/name",
        "url": "https://gpu-7.corp:8000/v1",
        "served": "judge@http://10.0.0.7/v1",
        "root": "/",
        "numbers": [1, 0.5, True, None],
        "nested": [{"a": "/a/b"}],
    }
    assert without_places(value) == {
        "path": "xstest.csv",
        "windows": "base",
        "relative": "data/xstest.csv",
        "hub": "org/name",
        "url": "https://host.invalid/v1",
        "served": "judge@http://host.invalid/v1",
        "root": "/",
        "numbers": [1, 0.5, True, None],
        "nested": [{"a": "b"}],
    }
