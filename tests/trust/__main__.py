"""Makes the tables of `docs/trust.md` and the catalogue anew: `python -m tests.trust`."""

from __future__ import annotations

from tests.trust.pages import pages

if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
