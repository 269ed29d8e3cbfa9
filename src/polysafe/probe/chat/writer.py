"""Chats written by a template of somebody else: runs in the process of `polysafe.confined`, and nowhere else.

Everything that it takes is imported here, before the process is held to its bounds and opens no file any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

MOST_WRITTEN = 100_000
"""Most characters that a template may write around its messages, whatever they are."""
TIMES = 8
"""How often a template may write a message, or as many signs in place of one."""

_FIRST = (
    "{{ messages | tojson }}{{ strftime_now('%d %b %Y') }}",
    "{{ raise_exception('no') }}",
    "{{ a.b.c }}",
    "{% if %}",
)
"""Templates that have everything imported that is imported at its first use, or by an error."""


def write(asked: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The text of every chat, or nothing and the problem.

    Args:
        asked: `template`, `tokens` (name -> special token) and `chats`.
    """
    return [_written(asked["template"], asked["tokens"], messages) for messages in asked["chats"]]


def _written(template: str, tokens: Mapping[str, str], messages: list[dict[str, Any]]) -> tuple[str, str]:
    try:
        given: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True, **tokens}
        rendered: Any = render_jinja_template([messages], **given)  # texts, and what it knows of assistants' tokens
        text = str(rendered[0][0])
    except MemoryError:
        return "", "it asks for too much memory"
    except Exception as error:  # noqa: BLE001  (a template raises what it likes)
        return "", str(error)[:10_000] or type(error).__name__
    most = MOST_WRITTEN + TIMES * sum(len(str(message.get("content", ""))) for message in messages)
    if len(text) > most:
        return "", f"it writes {len(text)} characters where {most} are allowed"
    return text, ""


for _template in _FIRST:
    _written(_template, {}, [])
