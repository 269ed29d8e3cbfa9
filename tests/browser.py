"""A real browser for tests of the pages: the Chromium of the machine; nothing is ever downloaded.

Everything that a page does beyond showing itself is recorded: what it says on the console, what it reports as an
issue, what it asks of the network, and who connects to a server that hostile texts point at.
"""

from __future__ import annotations

import os
import shutil
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Path of the Chromium of this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_browser(program: str) -> Iterator[Browser]:
    """Starts a headless browser, and ends it."""
    from playwright.sync_api import sync_playwright

    # Chromium refuses its sandbox to root, as whom containers run tests, and asks its makers for news on its own.
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    arguments = [*quiet, "--no-proxy-server", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page as it is open, and what it did.

    Attributes:
        page: The page.
        said: Messages on the console, errors, reported issues and dialogs.
        asked: Addresses that were requested, the page's own among them.
    """

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        """Goes to an address, forgetting what was recorded before, and waits for all that it loads."""
        self.said.clear()
        self.asked.clear()
        self.page.goto(address, wait_until="load")

    def dismiss(self, dialog: Dialog) -> None:
        """Notes a dialog and closes it."""
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_details(self) -> None:
        """Opens everything that can be opened."""
        self.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")

    @property
    def overhang(self) -> int:
        """CSS pixels by which the page is wider than the window."""
        width: int = self.page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
        return width


@contextmanager
def visit(
    browser: Browser,
    *,
    width: int = 1440,
    height: int = 900,
    phone: bool = False,
    colours: Literal["light", "dark"] = "light",
    javascript: bool = True,
    density: float = 2,
) -> Iterator[Visit]:
    """An empty page in a profile of its own.

    Args:
        browser: Where it opens.
        width: Of the window, in CSS pixels.
        height: Of the window.
        phone: Whether the device is one that is touched, with the layout of a phone's browser.
        colours: Which the reader prefers.
        javascript: Whether pages may run scripts, their policy permitting.
        density: Pixels of the screen for each CSS pixel.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=density,
        is_mobile=phone,
        has_touch=phone,
        color_scheme=colours,
        java_script_enabled=javascript,
    )
    try:
        found = Visit(context.new_page())
        _record(found)
        yield found
    finally:
        context.close()


def _record(found: Visit) -> None:
    found.page.on("console", lambda message: found.said.append(f"console: {message.text}"))
    found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    found.page.on("dialog", found.dismiss)
    found.page.on("popup", lambda page: found.said.append(f"popup: {page.url}"))
    session = found.page.context.new_cdp_session(found.page)

    def on(event: str, take: Any) -> None:
        session.on(event, take)
        session.send(event.partition(".")[0] + ".enable")

    # The console of the page does not show everything that the browser has to say about it.
    on("Log.entryAdded", lambda event: found.said.append(f"log: {event['entry']['text']}"))
    on("Audits.issueAdded", lambda event: found.said.append(f"issue: {event['issue']}"))
    on("Network.requestWillBeSent", lambda event: found.asked.append(event["request"]["url"]))
    on("Network.webSocketCreated", lambda event: found.asked.append(event["url"]))


class Listener(socketserver.ThreadingTCPServer):
    """A server on this machine that counts who connects, even without a request.

    Attributes:
        origin: Its address.
        heard: First line of every connection; empty for one that only opened.
    """

    daemon_threads = True
    heard: list[str]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.heard = []
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(socketserver.StreamRequestHandler):
    server: Listener
    timeout = 1.0

    def handle(self) -> None:
        self.server.heard.append("")
        number = len(self.server.heard) - 1
        try:
            self.server.heard[number] = self.rfile.readline(1000).decode("latin-1").strip()
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError:
            return


@contextmanager
def listen() -> Iterator[Listener]:
    """Listens on a free port until the end of the block."""
    with Listener() as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown()
            thread.join()
