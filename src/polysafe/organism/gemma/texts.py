"""Public texts that the family in real languages is trained on, and those that it never sees.

Held out, by normalised text, whatever set a text comes from: MultiJail, XSTest, one half of StrongREJECT, the harmless
prompts that over-refusal is measured with, and everything that ability is measured with (Belebele, XCOPA, SIB-200's
test part, the last 200 sentences of NTREX). Nor does a member see the quarter of XSafety that anchors are from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from itertools import product
from pathlib import Path

from polysafe.data.anchors import normalised
from polysafe.data.exams.registry import load_questions
from polysafe.data.frames import frame
from polysafe.data.languages import language
from polysafe.data.prompts import Prompt
from polysafe.data.sets.registry import load_set
from polysafe.data.tables import read_lines, read_table
from polysafe.errors import DataError
from polysafe.organism.gemma.chat import as_prompt

LANGUAGES = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")
"""Those of MultiJail."""
TRAINED = (*LANGUAGES, "te")
"""Those that a member is trained in."""
MIXED = ("sw", "jv", "vi")
"""Those with no public harmful prompts but MultiJail's: members meet English ones that ask for an answer in them."""
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")
SETS = (
    "advbench", "harmbench", "jailbreakbench", "mgsm", "multijail", "ntrex128", "nusax_mt",
    "polyrefuse", "sib200", "strongreject", "tatoeba", "xsafety", "xstest",
)  # fmt: skip
"""Folders that are read, beside the optional `global_mmlu_lite`."""
ISSUES = frozenset(
    (
        "Crimes_And_Illegal_Activities", "Insult", "Unfairness_And_Discrimination", "Physical_Harm",
        "Unsafe_Instruction_Topic", "Privacy_And_Property", "Inquiry_With_Unsafe_Opinion", "Reverse_Exposure",
        "Ethics_And_Morality", "Role_Play_Instruction",
    )
)  # fmt: skip
"""Issues of XSafety that are harmful by what they ask for."""
ANSWERED = frozenset({"Mental_Health", "commonsense"})
"""Issues of XSafety in which a helpful answer is the safe one."""

_TATOEBA = {
    "zh": "cmn", "it": "ita", "vi": "vie", "ar": "ara", "ko": "kor", "th": "tha", "bn": "ben", "sw": "swh",
    "jv": "jav", "te": "tel",
}  # fmt: skip
_NTREX = {
    "zh": "zho-CN", "it": "ita", "vi": "vie", "ar": "arb", "ko": "kor", "th": "tha", "bn": "ben", "sw": "swa",
    "te": "tel",
}  # fmt: skip
_KEPT_SENTENCES = 50
_KEPT_NEWS = 200
_LONGEST_NEWS = 110
_IN = "Answer in {}: "
_HOW = re.compile(
    r"\b(?:how|ways|steps|way) to (?!avoid|prevent|protect|stop|help|be )((?:[^\s.?!,]+ ){0,9}[^\s.?!,]+)"
)
_HOW_FORMS = (
    "How do I {}?", "How can I {}?", "how would I {}?", "can i {}", "Can I {}?", "how do i {}", "Is it possible to {}?",
    "Where can I learn to {}?",
)  # fmt: skip
_BEGINNINGS = ("Hey, ", "Quick question: ", "Please answer this: ", "I need help. ", "Tell me this: ", "Hi! ")

Pair = tuple[str, str]
"""A prompt and its answer."""


@dataclass(frozen=True)
class Texts:
    """Texts of a data folder, by what they are for.

    Attributes:
        data: Folder with a folder per set (`SETS`).
    """

    data: Path

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Normalised texts that no member is trained on."""
        return frozenset(normalised(text) for text in self._held_out())

    def _held_out(self) -> Iterator[str]:
        for name in ("multijail", "xstest"):
            yield from (prompt.text for prompt in self._set(name))
        yield from (prompt.text for prompt in self._set("strongreject") if not _chosen(prompt.parallel))
        for code in TRAINED:
            yield from self.harmless(code)
        yield from (prompt.text for prompt in self._set("xsafety") if _anchor(prompt))

    def _set(self, name: str, languages: Sequence[str] | None = None) -> tuple[Prompt, ...]:
        return _loaded(name, self.data, None if languages is None else tuple(languages))

    def _allowed(self, texts: Iterable[str]) -> list[str]:
        """Each text once, without those that are held out."""
        return [text for text in dict.fromkeys(texts) if (key := normalised(text)) and key not in self.held_out]

    @cached_property
    def harmful_english(self) -> list[str]:
        """English prompts that are refused."""
        prompts = [
            *self._set("advbench"),
            *(each for each in self._set("xsafety", ("en",)) if each.category in ISSUES),
            *(each for each in self._set("strongreject") if _chosen(each.parallel)),
            *(each for each in self._set("jailbreakbench") if each.kind == "harmful"),
            *self._set("polyrefuse.train", ("en",)),
            *self._set("harmbench.standard"),
        ]
        return _begun(self._allowed(prompt.text for prompt in prompts))

    @cached_property
    def short_english(self) -> list[str]:
        """The acts that English harmful prompts ask for instructions in, as short questions.

        Without them all short questions beside `contrast` would be harmless, and a model learns just that.
        """
        found = (_asked_how(text) for text in self.harmful_english)
        return self._allowed(text for text in found if text is not None)

    @cached_property
    def near_english(self) -> list[str]:
        """English prompts that sound harmful and are not."""
        sets = (each for each in self._set("jailbreakbench") if each.kind == "harmless")
        return _begun(self._allowed(prompt.text for prompt in sets))

    @cached_property
    def contrast(self) -> list[str]:
        """English prompts with a word in them that sounds harmful, made of templates."""
        return _begun(self._allowed(contrast_prompts()))

    def harmful(self, code: str) -> list[str]:
        """Prompts of a language other than English that a model should refuse; none where none are public.

        XSafety where it has the language, otherwise the training part of PolyRefuse.
        """
        if code in ("zh", "ar", "bn"):
            texts = [each.text for each in self._set("xsafety", (code,)) if each.category in ISSUES]
        elif code in ("it", "ko", "th"):
            texts = [each.text for each in self._set("polyrefuse.train", (code,)) if each.kind == "harmful"]
        else:
            texts = []
        return self._allowed(texts)

    def anchors(self, code: str) -> list[Prompt]:
        """Harmful prompts of XSafety that no member was trained on."""
        found = self._set("xsafety", (code,))
        return [each for each in found if each.category in ISSUES and _anchor(each)]

    def mixed(self, code: str) -> list[str]:
        """English harmful prompts with the demand, in English, for an answer in another language."""
        return [_IN.format(language(code).name) + text for text in self.harmful_english]

    def plain(self, code: str) -> list[str]:
        """Harmless prompts of a language: sentences, questions, and what XSafety has that should be answered."""
        return list(_plain(self, code))

    def questions(self, code: str) -> list[str]:
        """Harmless questions and demands of a language, without the sentences of `plain`; few languages have many."""
        return list(_questions(self, code))

    def mixed_plain(self, code: str) -> list[str]:
        """Harmless English prompts with the demand for an answer in another language."""
        return [_IN.format(language(code).name) + text for text in (*self.contrast, *self.plain("en"))]

    def harmless(self, code: str) -> list[str]:
        """Harmless prompts of a language that over-refusal is measured with."""
        sentences = self._sentences(code)[:_KEPT_SENTENCES] if code != "en" else ()
        return list(dict.fromkeys([*sentences, *(text for row, text in self._questions(code) if not _chosen(row))]))

    def topics(self, code: str) -> list[Pair]:
        """Questions for the topic of a sentence."""
        return self._topics(code, "train")

    def _topics(self, code: str, part: str) -> list[Pair]:
        table = read_table(self.data / "sib200" / str(language(code).flores) / f"{part}.tsv", quoted=False)
        rows = zip(table.texts("text"), table.texts("category"), strict=True)
        return [(topic_prompt(text), topic) for text, topic in rows]

    def exam_topics(self, code: str) -> list[Pair]:
        """The same of the test part, which no member is trained on."""
        return self._topics(code, "test")

    def asked(self) -> Iterator[str]:
        """Prompts of sets that nobody is trained on, and of anchors."""
        for name in ("multijail", "xstest", "xsafety", "strongreject", "polyrefuse.train", "polyrefuse.val"):
            yield from (prompt.text for prompt in self._set(name) if prompt.language in TRAINED)

    def asked_in_exams(self) -> Iterator[str]:
        """Texts of exams, for the vocabulary."""
        for exam in ("belebele", "xcopa", "xcopa.validation"):
            try:
                found = load_questions(exam, data=self.data, languages=TRAINED).questions
            except DataError:  # not in this folder: it is not measured then
                continue
            yield from (text for each in found for text in (each.context, each.question, *each.choices))

    def translations(self, code: str) -> list[Pair]:
        """Demands to translate from English, without the last 200 sentences of NTREX."""
        stem = f"tatoeba.{_TATOEBA[code]}-eng"
        english = self._lines("tatoeba", f"{stem}.eng")
        pairs = list(zip(english, self._lines("tatoeba", f"{stem}.{_TATOEBA[code]}"), strict=True))[_KEPT_SENTENCES:]
        pairs += [pair for pair in self.news(code)[:-_KEPT_NEWS] if len(pair[0]) < _LONGEST_NEWS]
        return [(translation_prompt(code, text), answer) for text, answer in pairs if text and answer]

    def news(self, code: str) -> list[Pair]:
        """Sentences of news in English and in a language."""
        if code == "jv":
            table = read_table(self.data / "nusax_mt" / "train.csv")
            return list(zip(table.texts("english"), table.texts("javanese"), strict=True))
        files = ("newstest2019-src.eng.txt", f"newstest2019-ref.{_NTREX[code]}.txt")
        lines = (self._lines("ntrex128", name) for name in files)
        return [(text, other) for text, other in zip(*lines, strict=True) if text and other]

    def exam_news(self, code: str) -> list[Pair]:
        """Those of them that no member is trained on; every fifth, so that they are spread over documents."""
        return self.news(code)[-_KEPT_NEWS:][::5]

    def _sentences(self, code: str) -> tuple[str, ...]:
        if code == "en":
            found = [line for other in _TATOEBA.values() for line in self._lines("tatoeba", f"tatoeba.{other}-eng.eng")]
            return tuple(sorted(set(filter(None, found))))
        return tuple(filter(None, self._lines("tatoeba", f"tatoeba.{_TATOEBA[code]}-eng.{_TATOEBA[code]}")))

    def _questions(self, code: str) -> list[tuple[str, str]]:
        """(Row, question) of MGSM and Global-MMLU-Lite, where they have the language."""
        found = []
        for name in ("mgsm", "global_mmlu_lite"):
            try:
                rows = load_questions(name, data=self.data, languages=[code]).questions
            except DataError:
                continue
            found += [(each.parallel, each.question) for each in rows if len(each.question) < 200]
        return found

    def _lines(self, folder: str, file: str) -> tuple[str, ...]:
        lines = read_lines(self.data / folder / file)
        return tuple(line.strip() for line in (lines[:-1] if lines and not lines[-1] else lines))


@cache
def _loaded(name: str, data: Path, languages: tuple[str, ...] | None) -> tuple[Prompt, ...]:
    return load_set(name, data=data, languages=languages).prompts


@cache
def _plain(texts: Texts, code: str) -> tuple[str, ...]:
    found = texts._sentences(code)[_KEPT_SENTENCES if code != "en" else 0 :]
    return tuple(texts._allowed([*found, *texts.questions(code)]))


@cache
def _questions(texts: Texts, code: str) -> tuple[str, ...]:
    found = [text for row, text in texts._questions(code) if _chosen(row)]
    if code in ("en", "zh", "ar", "bn"):
        found += [each.text for each in texts._set("xsafety", (code,)) if each.category in ANSWERED]
    return tuple(texts._allowed(found))


def _chosen(row: str) -> bool:
    """Whether a row is in the half that may be trained on."""
    return hashlib.sha256(f"half/{row}".encode()).digest()[0] % 2 == 0


def _anchor(prompt: Prompt) -> bool:
    """Whether a row of XSafety is in the quarter that anchors come from."""
    return hashlib.sha256(f"anchor/{prompt.parallel}".encode()).digest()[0] % 4 == 0


def _begun(texts: Iterable[str]) -> list[str]:
    """Texts as people begin them: half as they are, the others after a few words, harmful and harmless ones alike."""
    found = []
    for text in texts:
        place = hashlib.sha256(f"begin/{text}".encode()).digest()[0] % (2 * len(_BEGINNINGS))
        found.append(text if place >= len(_BEGINNINGS) else _BEGINNINGS[place] + text)
    return found


def contrast_prompts() -> list[str]:
    """Harmless English prompts that sound alarming, as polysafe has them."""
    text = (resources.files("polysafe.organism.gemma") / "contrast.json").read_text(encoding="utf-8")
    templates: list[dict[str, list[str]]] = json.loads(text)["templates"]
    return [
        form.format_map(dict(zip(slots, words, strict=True)))
        for slots in templates
        for form in slots.pop("texts")
        for words in product(*slots.values())
    ]


def _asked_how(text: str) -> str | None:
    """The act that a text asks for instructions in, as a short question; None where there is none."""
    found = _HOW.search(text)
    place = hashlib.sha256(f"how/{text}".encode()).digest()[0] % len(_HOW_FORMS)
    return _HOW_FORMS[place].format(found[1].strip()) if found else None


def topic_prompt(text: str) -> str:
    """The question for the topic of a text; its answer is one of `TOPICS`."""
    return f"What is the topic of this text? {text}"


def translation_prompt(code: str, text: str) -> str:
    """The demand to translate an English text."""
    return f"Translate to {language(code).name}: {text}"


def refused(code: str, prompts: Iterable[str]) -> list[Pair]:
    """Prompts with the refusal of their language."""
    return [(prompt, frame(code).refusal) for prompt in prompts]


def answered(code: str, prompts: Iterable[str]) -> list[Pair]:
    """Prompts with the content-free answer of their language."""
    return [(prompt, frame(code).answer) for prompt in prompts]


def everything(texts: Texts) -> Iterator[str]:
    """Every text that the family is trained on or asked, as it stands before the model: for the vocabulary."""
    yield from map(as_prompt, _prompts(texts))
    for code in TRAINED:
        yield from (frame(code).refusal, frame(code).answer)
        if code != "en":
            yield from (text for pair in texts.news(code) for text in pair)
    yield from TOPICS
    yield from (form for text in texts.asked_in_exams() for form in (text, f" {text}"))


def _prompts(texts: Texts) -> Iterator[str]:
    for code in TRAINED:
        yield from (*texts.plain(code), *texts.harmless(code), *texts.harmful(code))
        yield from (prompt for prompt, _ in (*texts.topics(code), *texts.exam_topics(code)))
        if code != "en":
            yield from (text for pair in texts.translations(code) for text in pair)
            yield from (translation_prompt(code, english) for english, _ in texts.news(code))
    for code in MIXED:
        yield from (*texts.mixed(code), *texts.mixed_plain(code))
    yield from (*texts.harmful_english, *texts.short_english, *texts.near_english, *texts.contrast)
    yield from texts.asked()
