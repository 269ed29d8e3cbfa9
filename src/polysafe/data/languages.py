"""Languages: one code for each, whatever a data set calls it.

The codes are ISO 639-1 where there is one, else ISO 639-3. The table holds every language of the benchmarks that
polysafe reads and needs no other package; languages beyond it are taken from CLDR where `babel` is installed. The codes
qaa to qtz are private use (ISO 639-3); the toy family speaks five of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from polysafe.errors import DataError, did_you_mean

Direction = Literal["ltr", "rtl"]

UNKNOWN_SCRIPT = "Zzzz"
"""ISO 15924: a script that nobody has named."""

_PRIVATE = re.compile(r"q[a-t][a-z]\Z")
_TAG = re.compile(r"[a-z]{2,3}(-[a-z]{4})?(-([a-z]{2}|[0-9]{3}))?\Z")
_REGION = re.compile(r"-([a-z]{2}|[0-9]{3})\Z")
_RIGHT_TO_LEFT = frozenset({"Arab", "Hebr", "Syrc", "Thaa", "Nkoo", "Adlm", "Rohg"})

# code, English name, script, FLORES code (empty: none), ISO 639-3, other spellings
_TABLE = """
en       | English             | Latn | eng_Latn | eng |
zh       | Chinese             | Hans | zho_Hans | zho | cmn zh-cn zh-sg zho-cn cmn-hans chinese-simplified
zh-Hant  | Traditional Chinese | Hant | zho_Hant | zho | zh-tw zh-hk zh-mo zho-tw cmn-hant chinese-traditional
it       | Italian             | Latn | ita_Latn | ita |
vi       | Vietnamese          | Latn | vie_Latn | vie |
ar       | Arabic              | Arab | arb_Arab | ara | arb modern-standard-arabic ar-xy
ko       | Korean              | Kore | kor_Hang | kor | kor-hang
th       | Thai                | Thai | tha_Thai | tha |
bn       | Bengali             | Beng | ben_Beng | ben | bangla
sw       | Swahili             | Latn | swh_Latn | swa | swh kiswahili
jv       | Javanese            | Latn | jav_Latn | jav | jw
de       | German              | Latn | deu_Latn | deu | ger
es       | Spanish             | Latn | spa_Latn | spa | sp es-la
fr       | French              | Latn | fra_Latn | fra | fre
ja       | Japanese            | Jpan | jpn_Jpan | jpn | jp
ru       | Russian             | Cyrl | rus_Cyrl | rus |
hi       | Hindi               | Deva | hin_Deva | hin |
te       | Telugu              | Telu | tel_Telu | tel |
ta       | Tamil               | Taml | tam_Taml | tam |
bg       | Bulgarian           | Cyrl | bul_Cyrl | bul |
he       | Hebrew              | Hebr | heb_Hebr | heb | iw
id       | Indonesian          | Latn | ind_Latn | ind | in
ms       | Malay               | Latn | zsm_Latn | msa | zsm zlm standard-malay
tl       | Tagalog             | Latn | tgl_Latn | tgl | fil filipino
pt       | Portuguese          | Latn | por_Latn | por |
nl       | Dutch               | Latn | nld_Latn | nld | dut
pl       | Polish              | Latn | pol_Latn | pol |
cs       | Czech               | Latn | ces_Latn | ces | cze
hu       | Hungarian           | Latn | hun_Latn | hun |
sr       | Serbian             | Cyrl | srp_Cyrl | srp |
tr       | Turkish             | Latn | tur_Latn | tur |
et       | Estonian            | Latn | est_Latn | est | ekk
ht       | Haitian Creole      | Latn | hat_Latn | hat | haitian
qu       | Quechua             | Latn | quy_Latn | que | quy quz
su       | Sundanese           | Latn | sun_Latn | sun |
yo       | Yoruba              | Latn | yor_Latn | yor |
ig       | Igbo                | Latn | ibo_Latn | ibo |
ha       | Hausa               | Latn | hau_Latn | hau |
zu       | Zulu                | Latn | zul_Latn | zul | isizulu
am       | Amharic             | Ethi | amh_Ethi | amh |
gd       | Scottish Gaelic     | Latn | gla_Latn | gla |
gn       | Guarani             | Latn | grn_Latn | grn |
ur       | Urdu                | Arab | urd_Arab | urd |
my       | Burmese             | Mymr | mya_Mymr | mya | bur
km       | Khmer               | Khmr | khm_Khmr | khm |
lo       | Lao                 | Laoo | lao_Laoo | lao |
ace      | Acehnese            | Latn | ace_Latn | ace |
ban      | Balinese            | Latn | ban_Latn | ban |
bbc      | Batak Toba          | Latn |          | bbc | toba-batak
bjn      | Banjar              | Latn | bjn_Latn | bjn | banjarese
bug      | Buginese            | Latn | bug_Latn | bug |
mad      | Madurese            | Latn |          | mad |
min      | Minangkabau         | Latn | min_Latn | min |
nij      | Ngaju               | Latn |          | nij |
"""


@dataclass(frozen=True, slots=True)
class Language:
    """A language.

    Attributes:
        code: Code, as polysafe spells it everywhere.
        name: English name.
        script: ISO 15924 code of its script; `Zzzz` where it is not known.
        direction: Direction of writing.
        flores: Code in FLORES-200 and its relatives, None where it is not among them.
        iso639_3: Code of three letters, None where it is not known.
        spellings: Other ways in which data sets write it, in lower case and with hyphens.
    """

    code: str
    name: str
    script: str
    direction: Direction
    flores: str | None = None
    iso639_3: str | None = None
    spellings: tuple[str, ...] = ()

    @property
    def private(self) -> bool:
        """Whether the code is for private use, so that nothing is known of the language."""
        return bool(_PRIVATE.match(self.code))


def language(spelling: str) -> Language:
    """The language that a code or name means.

    Args:
        spelling: An ISO 639-1 or 639-3 code, a FLORES code, a code with a region, an English name, or one of the
            spellings of public data sets such as XSafety's `sp`; case and `_` or `-` do not matter.

    Raises:
        DataError: Nobody knows it.
    """
    word = _folded(spelling)
    found = _known().get(word) or _known().get(_REGION.sub("", word)) or _private(word) or _from_cldr(word)
    if found is None:
        guess = did_you_mean(word, _known())
        raise DataError(
            f"{spelling!r} is no language that is known",
            remedy=guess
            or "use an ISO 639 code, such as `sw`; with the package `babel` every language of CLDR is known",
        )
    return found


def is_language(spelling: str) -> bool:
    """Whether the table has a language of this code or name, or it is a private one."""
    word = _folded(spelling)
    return word in _known() or _REGION.sub("", word) in _known() or _private(word) is not None


def code_of(spelling: str) -> str:
    """The code of a language in any spelling; what is no language stays as it is."""
    return language(spelling).code if is_language(spelling) else spelling


def is_private(spelling: str) -> bool:
    """Whether a code is for private use, so that nothing is known of its language."""
    return _private(_folded(spelling)) is not None


def languages() -> tuple[Language, ...]:
    """Every language of the table."""
    return tuple(_table().values())


def _folded(spelling: str) -> str:
    return re.sub(r"[\s_-]+", "-", spelling.strip().casefold())


def _direction(script: str) -> Direction:
    return "rtl" if script in _RIGHT_TO_LEFT else "ltr"


@cache
def _table() -> Mapping[str, Language]:
    found = {}
    for line in _TABLE.strip().splitlines():
        code, name, script, flores, iso, others = (cell.strip() for cell in line.split("|"))
        found[code] = Language(code, name, script, _direction(script), flores or None, iso, tuple(others.split()))
    return found


@cache
def _known() -> Mapping[str, Language]:
    """Spelling -> language. Where two claim one, the first of the table has it (`zho` is simplified)."""
    found: dict[str, Language] = {}
    for entry in _table().values():
        spellings = (entry.code, entry.name, entry.flores or "", entry.iso639_3 or "", *entry.spellings)
        for spelling in filter(None, (*spellings, f"{entry.code.split('-')[0]}-{entry.script}")):
            found.setdefault(_folded(spelling), entry)
    return found


def _private(word: str) -> Language | None:
    if not _PRIVATE.match(word):
        return None
    return Language(word, f"Private language {word}", UNKNOWN_SCRIPT, "ltr", iso639_3=word)


@cache
def _from_cldr(word: str) -> Language | None:
    if not _TAG.match(word):
        return None
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        return None
    try:
        locale = Locale.parse(word, sep="-")
    except (UnknownLocaleError, ValueError):
        return None
    code, name = locale.language, locale.get_language_name("en")
    if name is None:
        return None
    return Language(code, name, _likely_script(word, locale.script), _cldr_direction(locale.text_direction))


def _likely_script(word: str, stated: str | None) -> str:
    from babel.core import get_global

    parts = str(get_global("likely_subtags").get(word.split("-", maxsplit=1)[0], "")).split("_")
    return stated or (parts[1] if len(parts) > 1 else UNKNOWN_SCRIPT)


def _cldr_direction(text_direction: str) -> Direction:
    return "rtl" if text_direction == "rtl" else "ltr"
