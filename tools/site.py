"""Hooks of the documentation's site: pages that lie elsewhere in the repository, and links to what is no page."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "tests/traps/README.md": "traps.md",
    "tests/attacks/CATALOGUE.md": "catalogue.md",
}
"""Pages of the repository that are no files of `docs/` -> their names on the site."""
_PLACES = {name: place for place, name in ELSEWHERE.items()}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere."""
    from mkdocs.structure.files import File

    for place, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / place).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turns links of the repository into links of the site."""
    name = page.file.src_uri
    return relinked(markdown, name, _PLACES.get(name, f"docs/{name}"))


def _title(place: str) -> str:
    """What a page is called; a repository names it by its file, which says less on a site."""
    lines = (ROOT / place).read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), place)


def relinked(markdown: str, name: str, place: str) -> str:
    """A page whose links lead to pages of the site; what is no page of it is named without a link.

    Args:
        markdown: The page.
        name: Its name on the site.
        place: Where it lies in the repository.
    """

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found[1], found[2], found[3], found[4] or ""
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        on_site = ELSEWHERE.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
        if on_site is None:
            return text
        if text == posixpath.basename(target):
            text = _title(wanted)
        return f"{picture}[{text}]({posixpath.relpath(on_site, posixpath.dirname(name) or '.')}{anchor})"

    return _LINK.sub(link, markdown)
