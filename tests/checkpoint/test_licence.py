from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.checkpoint.licence import Licence, front_matter, licence_id, licence_of

APACHE = "                                 Apache License\n                           Version 2.0, January 2004\n"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, Licence(None)),
        ({"README.md": "---\nlicense: apache-2.0\n---\n# x"}, Licence("apache-2.0", "apache-2.0", "README.md")),
        ({"README.md": "---\r\nlicense: MIT\r\n---\r\n"}, Licence("mit", "MIT", "README.md")),
        ({"README.md": "---\nlicense: [mit]\n---"}, Licence("mit", "mit", "README.md")),
        ({"README.md": "---\nlicense: [mit, gpl]\n---"}, Licence(None, "mit, gpl", "README.md")),
        (
            {"README.md": "---\nlicense: other\nlicense_name: qwen-research\n---\n"},
            Licence(None, "other, qwen-research", "README.md"),
        ),
        ({"README.md": "# none", "LICENSE": APACHE}, Licence("apache-2.0", "apache-2.0", "LICENSE")),
        ({"LICENSE.txt": "MIT License\n\nCopyright"}, Licence("mit", "mit", "LICENSE.txt")),
        ({"LICENSE": "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT"}, Licence("llama3.1", "llama3.1", "LICENSE")),
        ({"LICENSE": "All rights reserved"}, Licence(None, "a text of its own", "LICENSE")),
        ({"config.json": '{"license": "cc-by-4.0"}'}, Licence("cc-by-4.0", "cc-by-4.0", "config.json")),
        ({"config.json": '{"license": {"a": 1}}'}, Licence(None)),
        ({"README.md": "---\nlicense: <script>\n---\n"}, Licence(None, "<script>", "README.md")),
        ({"README.md": "---\nlicense: !!python/object:os.system x\n---\n"}, Licence(None)),
        ({"README.md": "---\n" + "[" * 5000 + "\n---\n"}, Licence(None)),
        ({"README.md": b"---\nlicense: \xff\xfe\n---\n"}, Licence(None, "\ufffd\ufffd", "README.md")),
    ],
)
def test_where_licences_are_found(files: dict[str, str | bytes], wanted: Licence, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert licence_of(tmp_path) == wanted


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "card.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "model" / "README.md").symlink_to(tmp_path / "card.md")
    assert licence_of(tmp_path / "model") == Licence(None)


def test_metadata_that_is_none() -> None:
    for text in ("", "# x", "---\n- a\n---\n", "---\na: [\n---\n", "---\nlicense: mit\n"):
        assert front_matter(text) == {}


def test_names_of_licences() -> None:
    assert licence_id(" Apache-2.0 ") == "apache-2.0"
    assert [licence_id(text) for text in ("", "other", "unknown", "a b", "mit\n---", "é")] == [None] * 6
