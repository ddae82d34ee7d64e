"""What people call emoji: short names and keywords in 102 languages.

From Unicode CLDR (`model/emoji/data/NOTICE.md`). A language is its CLDR code; not every language
names every emoji. An emoji is its index in `model.emoji.drawings.concepts()`.
"""

import gzip
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.emoji.drawings import Split, concepts

_FILE = Path(__file__).parent / "data" / "names.tsv.gz"

RELATIVES: Mapping[str, tuple[str, ...]] = {
    "pt-PT": ("es", "it", "ro"),
    "da": ("no", "sv", "fo"),
    "uk": ("ru", "bg", "sr"),
    "ms": ("id", "jv"),
    "ky": ("kk", "tg"),
    "ne": ("hi", "kok"),
    "zu": ("xh",),
    "yue": ("zh-Hant", "zh", "ja"),
    "fa": ("ur", "ps"),
    "hu": (),
    "ka": (),
}
"""Languages that no text encoder is trained on, and trained ones near them (not all there are).
Hungarian shares an alphabet with many; Georgian has its own, so it shows the floor."""
HELD_OUT_LANGUAGES = tuple(RELATIVES)


@dataclass(frozen=True, slots=True)
class Name:
    """How one language calls one emoji."""

    name: str
    keywords: tuple[str, ...]


@cache
def names(language: str) -> Mapping[int, Name]:
    """A language's names by emoji; raises KeyError for a language that is not there."""
    rows = (line.split("\t") for line in _lines()[language])
    return {
        int(emoji): Name(name, tuple(word for word in keywords.split("|") if word))
        for emoji, name, keywords in rows
    }


@cache
def _lines() -> Mapping[str, tuple[str, ...]]:
    """What the file says of each language: emoji, name and keywords, with tabs between."""
    by_language: dict[str, list[str]] = defaultdict(list)
    with gzip.open(_FILE, "rt", encoding="utf-8", newline="\n") as file:
        next(file)
        for line in file:
            language, _, rest = line.rstrip("\n").partition("\t")
            by_language[language].append(rest)
    return {language: tuple(lines) for language, lines in by_language.items()}


def concepts_of(split: Split) -> list[int]:
    """A split's emoji, whoever draws them."""
    return [i for i, concept in enumerate(concepts()) if concept.split == split]


def languages() -> tuple[str, ...]:
    """All 102, sorted."""
    return tuple(sorted(_lines()))


def trained_languages() -> tuple[str, ...]:
    """Those that a text encoder may be trained on, sorted."""
    return tuple(language for language in languages() if language not in RELATIVES)
