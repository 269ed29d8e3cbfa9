"""Keeps what a judge reads from acting on the judge.

A model's answer may hold a fake verdict, the end of a fence, the role markers of a chat format, invisible letters or a
megabyte of text. Nothing of it is believed: it is cut to size, what cannot be seen is written out, and what a chat
template or a judge's prompt could take for structure is changed to something that looks alike and means nothing.
Letters of every language stay as they are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

LIMIT = 20_000
"""Characters of an answer that a judge gets to see, by default: more than any answer of a few thousand tokens."""

# Tokens between brackets and bars (Llama, Qwen, Phi, GLM; DeepSeek with full-width bars, EXAONE in square brackets),
# older bracketed roles (Llama 2, Mistral) and other bracketed tokens (GLM, BERT, Mistral's tools and thoughts, Kimi,
# InternLM), tags of turns, thoughts and sequence ends (Gemma and others), tokens kept for later (T5, Nemotron, Gemma,
# Baichuan), Falcon's and MiniMax's own, and the marks around a conversation in the templates of guard models.
_MARKERS = re.compile(
    r"<[|｜][^<>\n]{0,60}?[|｜]>"
    r"|\[[|｜][^\[\]\n]{0,60}?[|｜]\]"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|CALL_ID|MODEL_SETTINGS|THINK"
    r"|[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT|IMG(?:_BREAK|_END)?|(?:BEGIN_)?AUDIO|CONTROL_\d{1,6}"
    r"|UNUSED_TOKEN_\d{1,6}|unused_?\d{1,6})\]"
    r"|</?(?:extra_id|special|reserved(?:_special)?(?:_token)?|unused|TOKENS_UNUSED|extra_token)_?\d{1,6}>"
    r"|</?(?:tool_call|tool_response|tools|tool_code|fim_prefix|fim_middle|fim_suffix|start_of_image|end_of_image"
    r"|image_soft_token|eoh|eoa|seed:[a-z_]{1,20})>"
    r"|>>(?:QUESTION|ANSWER|TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|DOMAIN|PREFIX|MIDDLE|SUFFIX)<<"
    r"|\]~!?b\[?\]?|\[e~\["
    r"|</?(?:s|bos|eos|pad|unk|mask|user|asst|assistant|system|model|tool|think|im_start|im_end|start_of_turn"
    r"|end_of_turn|sop|eop|gMASK)>"
    r"|<</?SYS>>"
    r"|<(?:BEGIN|END)[ A-Z]{0,40}>"
    r"|<0x[0-9A-Fa-f]{2}>",
    re.IGNORECASE,
)
_LOOKALIKE = str.maketrans({"<": "‹", ">": "›", "[": "⟦", "]": "⟧", "|": "¦", "｜": "¦"})
# A line that begins as a turn of a written-out conversation, or as a field of a verdict.
_ROLE_LINE = re.compile(
    r"^(?P<lead>[ \t>*_#]*)(?P<role>human(?: user| question)?|user|(?:ai )?assistant|agent|system|chatbot response"
    r"|model|gpt|bot|answers?|verdict[\w-]*|refused[\w-]*|safety|categories|refusal|harmful (?:request|response)"
    r"|response refusal|(?:request|response) safety violations|instructions?|response)(?P<gap>[ \t*_]*):",
    re.IGNORECASE | re.MULTILINE,
)
_RULE_LINE = re.compile(r"^[ \t]*(-{3,}|={3,}|`{3,}|~{3,}|\*{3,})[ \t]*$", re.MULTILINE)

# Everything that some reader takes for the end of a line.
_LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

# Joiners are spelling in these scripts, as long as they stand between letters or marks.
_JOINERS = "\u200c\u200d"
_EMOJI_SELECTOR = "\ufe0f"
_KEPT_CONTROLS = "\n\t"


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as a judge sees it.

    Attributes:
        text: The text.
        left_out: Characters that were cut from its middle.
        invisible: Invisible characters that were written out.
        markers: Control tokens and role lines that were changed.
    """

    text: str
    left_out: int
    invisible: int
    markers: int

    @property
    def detail(self) -> dict[str, int]:
        """What was done to the text, for `Verdict.detail`; what was not done is left out."""
        found = {"left_out": self.left_out, "invisible": self.invisible, "markers": self.markers}
        return {name: count for name, count in found.items() if count}


class Fence:
    """Delimiters that nobody who does not know the key can guess, a new one for every text.

    The delimiter is an HMAC over what is fenced, so that the same call gives the same prompt as long as the key is the
    same, and an answer would have to contain a hash of itself to close its own fence.

    Args:
        key: Secret; a new one for every fence by default.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    def mark(self, *texts: str) -> str:
        """The delimiter of some texts, 16 hexadecimal digits that occur in none of them."""
        turn = 0
        while True:
            message = "\x00".join((str(turn), *texts)).encode("utf-8", "surrogatepass")
            mark = hmac.new(self._key, message, hashlib.sha256).hexdigest()[:16]
            if not any(mark in text for text in texts):
                return mark
            turn += 1

    @staticmethod
    def block(name: str, text: str, mark: str) -> str:
        """A text between its delimiters, every line quoted, so that no line of it stands at the margin."""
        quoted = "\n".join(f"| {line}" for line in _LINE_ENDS.split(text))
        return f"<<<{name} {mark}\n{quoted}\n{name} {mark}>>>"


def show(text: str, limit: int = LIMIT) -> Shown:
    """A text of a model or data set as a judge may see it.

    Args:
        text: The text.
        limit: Most characters to show; the middle of a longer text is left out, with a note in its place.
    """
    cut, left_out = shorten(text, limit)
    cut = _LINE_ENDS.sub("\n", cut)
    visible, invisible = make_visible(cut)
    plain, markers = neutralise(visible)
    again, more = shorten(plain, 2 * limit)  # writing out what is invisible makes a text longer
    return Shown(again, left_out + more, invisible, markers)


def shorten(text: str, limit: int) -> tuple[str, int]:
    """The text with its middle left out if it is longer than `limit` characters, and how many were left out.

    Beginning and end are kept because refusals stand at the beginning and what follows them at the end. No letter is
    parted from its marks.
    """
    if len(text) <= limit:
        return text, 0
    half = limit // 2
    start, end = _whole(text, half), _whole(text, len(text) - half)
    left_out = end - start
    return f"{text[:start]}\n[… {left_out:,} characters left out here …]\n{text[end:]}", left_out


def _whole(text: str, place: int) -> int:
    """The nearest place at or before `place` where a letter begins; not further than 16 characters away."""
    for near in range(place, max(place - 16, 0), -1):
        if unicodedata.category(text[near])[0] != "M" and text[near] not in _JOINERS:
            return near
    return place


def make_visible(text: str) -> tuple[str, int]:
    """Writes out characters that have no shape but have effects, and counts them.

    Direction controls, zero-width characters, tag characters, further variation selectors, controls other than line
    breaks and tabs, surrogates. Joiners between letters (Persian, Bengali, Malayalam, emoji) are spelling and stay.
    """
    if not any(_is_hidden(char) for char in set(text)):
        return text, 0
    pieces: list[str] = []
    count = 0
    run: tuple[str, int] = ("", 0)
    for place, char in enumerate(text):
        hidden = _is_hidden(char) and not (char in _JOINERS and _joins(text, place))
        count += hidden
        if run[1] and (not hidden or char != run[0]):
            pieces.append(_written_out(*run))
            run = ("", 0)
        if hidden:
            run = (char, run[1] + 1)
        else:
            pieces.append(char)
    if run[1]:
        pieces.append(_written_out(*run))
    return "".join(pieces), count


def neutralise(text: str) -> tuple[str, int]:
    """Changes control tokens, role lines and rules to look-alikes without meaning, and counts them."""
    text, markers = _MARKERS.subn(lambda found: found[0].translate(_LOOKALIKE), text)
    text, roles = _ROLE_LINE.subn(lambda found: f"{found['lead']}{found['role']}{found['gap']}：", text)
    text, rules = _RULE_LINE.subn(lambda found: "· " + found[1], text)
    return text, markers + roles + rules


def strip_invisible(text: str) -> str:
    """The text without what `make_visible` would write out; for comparing, not for showing."""
    return "".join(
        char for place, char in enumerate(text) if not _is_hidden(char) or (char in _JOINERS and _joins(text, place))
    )


@lru_cache(maxsize=4096)
def _is_hidden(char: str) -> bool:
    if char in _KEPT_CONTROLS or char == _EMOJI_SELECTOR:
        return False
    code = ord(char)
    selector = 0xFE00 <= code <= 0xFE0E or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F
    filler = code in {0x115F, 0x1160, 0x3164, 0xFFA0, 0x034F, 0x2800}
    return selector or filler or unicodedata.category(char) in {"Cf", "Cc", "Cs"}


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two characters that it can join."""
    if not 0 < place < len(text) - 1:
        return False
    before, after = text[place - 1], text[place + 1]
    return _takes_joiner(before) and _takes_joiner(after)


@lru_cache(maxsize=4096)
def _takes_joiner(char: str) -> bool:
    if char == _EMOJI_SELECTOR:
        return True
    kind = unicodedata.category(char)
    latin = unicodedata.name(char, "").startswith(("LATIN", "DIGIT", "CYRILLIC", "GREEK"))
    return (kind[0] in "LM" and not latin) or kind in {"So", "Sk"}


def _written_out(char: str, times: int) -> str:
    name = f"U+{ord(char):04X}"
    return f"[{name}]" if times == 1 else f"[{name} ×{times}]"
