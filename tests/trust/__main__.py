"""Makes the tables of `docs/trust.md` and of the pages under it, and the catalogue, anew: `python -m tests.trust`."""

from __future__ import annotations

from tests.trust.collected import collected
from tests.trust.pages import pages

if __name__ == "__main__":
    for path, text in pages(collected()).items():
        path.write_text(text, encoding="utf-8")
