"""Which languages judges are documented for, and what a reader of their verdicts has to know.

A judge answers in any language it is asked in. Whether anybody measured it there is another question; a rate in a
language that a judge's authors do not name is shown, and said to be outside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from polysafe.judge.text.language import normal
from polysafe.judge.verdict import Judge

ENGLISH = frozenset({"en"})
# README of QwenLM/Qwen3Guard: 119 languages and dialects, those of Qwen3 (arXiv 2505.09388). Its varieties of Arabic
# and of Chinese are one language each here; some languages have two codes.
_QWEN3 = """
en fr pt de ro sv da bg ru cs el uk es nl sk hr pl lt nb nn no fa prs sl gu lv it oc ne mr be sr lb vec as cy szl ast
hne awa mai bho sd ga fo hi pa bn or tg ydd yi lmo lij scn fur sc gl ca is als sq li af mk si ur mag bs hy zh yue my ar
he mt id ms tl fil ceb jv su min ban bjn pag ilo war ta te kn ml tr az uz kk ba tt th lo fi et hu vi km ja ko ka eu ht
pap kea tpi sw
"""
QWEN3 = frozenset(_QWEN3.split())
# meta-llama/PurpleLlama, Llama-Guard3/8B/MODEL_CARD.md, "Supported languages"; the card of version 4 refers to them.
LLAMA_GUARD = frozenset({"en", "fr", "de", "hi", "it", "pt", "es", "th"})
# Card of the data set ToxicityPrompts/PolyGuardPrompts; arXiv 2504.04377.
_POLYGUARD = "ar zh cs nl en fr de hi th it ja ko pl pt ru es sv"
POLYGUARD = frozenset(_POLYGUARD.split())


def judge_notes(judge: Judge, languages: Iterable[str]) -> Iterator[str]:
    """What a reader of a judge's verdicts on prompts in some languages should know."""
    asked = tuple(dict.fromkeys(languages))
    documented: Mapping[str, Collection[str]] = getattr(judge, "documented", {})
    for name, known in documented.items():
        outside = [language for language in asked if language not in known and normal(language) not in known]
        if outside:
            scope = "English only" if set(known) == ENGLISH else f"{len(known)} languages"
            number = "1 language is" if len(outside) == 1 else f"{len(outside)} languages are"
            yield f"{name} is documented for {scope}; {number} outside: {', '.join(outside)}"
    yield from getattr(judge, "caveats", ())
