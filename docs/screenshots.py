"""Pictures of a report for the README, made again by one command.

    polysafe quickstart --output out
    python docs/screenshots.py out

It opens `out/report/index.html` in the Chromium of this machine and writes the first screen as readers on a desktop and
on a phone see it: `docs/quickstart.png` and `docs/quickstart-phone.png`. The same report, browser and fonts give the
same bytes.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the browser of the tests is not in the package

from PIL import Image
from playwright.sync_api import Browser

from polysafe.files.atomic import write_bytes_atomic
from tests.browser import chromium, open_browser, visit

DESKTOP = (1200, 875)
PHONE = (360, 1333)
COLOURS = 256
LARGEST = 300_000


def picture(browser: Browser, page: Path, size: tuple[int, int], *, phone: bool) -> bytes:
    """The first screen of a page as a PNG with a palette, which for flat colours and text is a third of the size."""
    width, height = size
    with visit(browser, width=width, height=height, phone=phone) as reader:
        reader.open(page.resolve().as_uri())
        reader.page.evaluate("document.fonts.ready")
        shown = Image.open(io.BytesIO(reader.page.screenshot(animations="disabled", caret="hide")))
    buffer = io.BytesIO()
    flat = shown.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    flat.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder that holds report/index.html")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder for the pictures")
    arguments = parser.parse_args()
    page = arguments.output / "report" / "index.html"
    program = chromium()
    if program is None or not page.is_file():
        parser.error("this machine has no Chromium" if program is None else f"{page} is missing")
    with open_browser(program) as browser:
        for name, size, phone in (("quickstart", DESKTOP, False), ("quickstart-phone", PHONE, True)):
            content = picture(browser, page, size, phone=phone)
            if len(content) > LARGEST:
                parser.error(f"{name}.png would have {len(content):,} bytes, more than {LARGEST:,}")
            arguments.to.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(arguments.to / f"{name}.png", content)
            sys.stdout.write(f"{arguments.to / name}.png  {len(content):,} bytes\n")


if __name__ == "__main__":
    main()
