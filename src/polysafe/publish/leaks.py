"""What must not leave this machine by accident: its folders, its name, keys.

A file is read as text in every way in which somebody else's program could read it: as UTF-8, as UTF-16, with its
escapes undone. Keys are looked for in every file but the weights, by rules of our own and by those of detect-secrets,
none of which asks a server whether a key works.
"""

from __future__ import annotations

import html
import json
import re
import socket
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from polysafe.files.json_file import parse_json
from polysafe.secret import hide

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

_SOMEBODYS_FOLDER = re.compile(
    r"(?:/home/|/Users/|/root/|/mnt/|/media/|/Volumes/|[A-Za-z]:\\+Users\\+|(?<![\\\w])\\\\(?!\\)[\w.$-]{2,}\\)"
    r"[^\s\"'<>`,:\\/]+"
)
_KEYS = tuple(
    map(
        re.compile,
        (
            *(
                r"hf_[A-Za-z0-9]{20,}",
                r"sk-[A-Za-z0-9_-]{20,}",
                r"AKIA[0-9A-Z]{16}\b",
                r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
            ),
            *(rf"gh{kind}_[A-Za-z0-9]{{30,}}" for kind in "pousr"),
            *(
                r"github_pat_\w{22,}",
                r"glpat-[\w-]{20,}",
                r"AIza[\w-]{35}",
                r"ya29\.[\w-]{20,}",
                r"xox[abeoprs]-[\w-]{10,}",
            ),
        ),
    )
)
"""Each begins with letters of its own, by which it is found fast: vocabularies have tens of megabytes."""
_PASSWORD = re.compile(r"://[^\s/:@\"'<>{}$]{1,100}:[^\s/:@\"'<>{}$]{1,200}@[\w.-]")
_ESCAPES = re.compile(r"\\u([0-9A-Fa-f]{4})|\\x([0-9A-Fa-f]{2})")
_SHORTEST_HOST = 5
"""Shorter names of hosts are words or parts of words."""
_DETECTORS = (
    *("aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector", "discord.DiscordBotTokenDetector"),
    *("github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector", "jwt.JwtTokenDetector"),
    *("mailchimp.MailchimpDetector", "npm.NpmDetector", "openai.OpenAIDetector", "private_key.PrivateKeyDetector"),
    *("pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector", "slack.SlackDetector"),
    *("square_oauth.SquareOAuthDetector", "stripe.StripeDetector", "telegram_token.TelegramBotTokenDetector"),
    "twilio.TwilioKeyDetector",
)
"""Those that know a key by its form. Others tell by entropy or by words beside, as of any hash and any prompt."""


class Leak(NamedTuple):
    """Something in a file.

    Attributes:
        told: What, in words; keys are never repeated.
        secret: Whether it looks like a key.
    """

    told: str
    secret: bool = False


def leaks(data: bytes, model: Path, *, places: bool = True, of_a_model: bool = False) -> Iterator[Leak]:
    """What a file says that it should not, each kind once.

    Args:
        data: Its content.
        model: The folder of the model.
        places: Whether to look for folders and the name of this machine too, which words of a vocabulary may look like.
        of_a_model: Whether the file holds what models said, which may name folders of nobody.
    """
    texts = list(_readings(data))
    if any(map(_holds_key, texts)):
        yield Leak("something that looks like a secret key", secret=True)
    if any(map(_PASSWORD.search, texts)):
        yield Leak("a password in an address", secret=True)
    if places and (told := next(filter(None, (_place(text, model, of_a_model) for text in texts)), None)):
        yield Leak(told)
    host = socket.gethostname()
    name = re.compile(rf"(?<![\w-]){re.escape(host)}(?![\w-])")
    if places and len(host) >= _SHORTEST_HOST and any(map(name.search, texts)):
        yield Leak(f"the name of this machine ({host})")


def _readings(data: bytes) -> Iterator[str]:
    if b"\0" in data:
        yield from (data[start:].decode(code, "ignore") for code in ("utf-16-le", "utf-16-be") for start in (0, 1))
    try:
        # The strings themselves: in JSON every backslash of a path is two.
        yield json.dumps(parse_json(data), ensure_ascii=False).replace("\\\\", "\\")
    except ValueError:
        text = data.decode("utf-8", "replace")
        yield text
        plain = html.unescape(unquote(_ESCAPES.sub(lambda found: chr(int(found[1] or found[2], 16)), text)))
        if plain != text:
            yield plain


def _holds_key(text: str) -> bool:
    if hide(text) != text or any(_begins_word(text, found.start()) for one in _KEYS for found in one.finditer(text)):
        return True
    return any(True for detector in _detectors() for _ in detector.analyze_string(text))


def _begins_word(text: str, place: int) -> bool:
    return place == 0 or not text[place - 1].isalnum()


@cache
def _detectors() -> tuple[RegexBasedDetector, ...]:
    def made(name: str) -> Any:
        module, kind = name.split(".")
        return getattr(import_module(f"detect_secrets.plugins.{module}"), kind)()

    return tuple(map(made, _DETECTORS))


def _place(text: str, model: Path, of_a_model: bool) -> str | None:
    for place in _places(model):
        if place in text:
            return f"a folder of this machine ({place})"
    found = None if of_a_model else _SOMEBODYS_FOLDER.search(text)
    return f"somebody's folder ({found[0]}…)" if found else None


def _places(model: Path) -> list[str]:
    folders = dict.fromkeys((Path.home(), Path.home().resolve(), model.absolute().parent, model.resolve().parent))
    return [f"{folder}/" for folder in folders if len(folder.parts) > 1]
