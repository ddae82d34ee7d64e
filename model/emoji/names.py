"""Names of emoji: short names and keywords in 102 languages, from Unicode CLDR.

A language is known by its CLDR code; not every language names every emoji. An emoji is known by its
index in `model.emoji.drawings.concepts()`. `model/emoji/data/NOTICE.md` has the licence.
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
"""Languages that no text encoder is trained on, and some trained ones that are near them. Hungarian
shares an alphabet with many; Georgian has one of its own, so it shows the floor."""
HELD_OUT_LANGUAGES = tuple(RELATIVES)


@dataclass(frozen=True, slots=True)
class Name:
    """One language's name of one emoji, and its keywords."""

    name: str
    keywords: tuple[str, ...]


@cache
def names_in(language: str) -> Mapping[int, Name]:
    """Return a language's names by emoji. Raises KeyError for a language that is not there."""
    rows = (line.split("\t") for line in _lines()[language])
    return {
        int(emoji): Name(name, tuple(word for word in keywords.split("|") if word))
        for emoji, name, keywords in rows
    }


@cache
def _lines() -> Mapping[str, tuple[str, ...]]:
    """Return the file's lines by language: emoji, name and keywords, separated by tabs."""
    by_language: dict[str, list[str]] = defaultdict(list)
    with gzip.open(_FILE, "rt", encoding="utf-8", newline="\n") as file:
        next(file)
        for line in file:
            language, _, rest = line.rstrip("\n").partition("\t")
            by_language[language].append(rest)
    return {language: tuple(lines) for language, lines in by_language.items()}


def concepts_of(split: Split) -> list[int]:
    """Return the emoji of a split, whoever draws them."""
    return [i for i, concept in enumerate(concepts()) if concept.split == split]


def languages() -> tuple[str, ...]:
    """Return all 102 languages, sorted."""
    return tuple(sorted(_lines()))


def trained_languages() -> tuple[str, ...]:
    """Return the languages that a text encoder may be trained on, sorted."""
    return tuple(language for language in languages() if language not in RELATIVES)
