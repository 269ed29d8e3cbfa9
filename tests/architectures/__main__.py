"""Makes the table of `docs/architectures.md` anew: `python -m tests.architectures`."""

from __future__ import annotations

from tests.architectures.table import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
