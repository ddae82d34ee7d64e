"""Makes texts alike that people call equal, in time that the length bounds.

The rules are Unicode's: NFKC, case folding, NFKC again (NFKC_Casefold but for ignorable characters;
Unicode Standard Annex 15), and runs of white space as single spaces. What is asked for is the
beginning of the normalised text, not the normalised beginning: a text of composed characters and
the same text of letters and marks (NFC and NFD) give the same.
"""

import unicodedata

MARKS_IN_A_ROW = 30
"""So many marks that stand on one letter are read, as in Unicode's Stream-Safe Text Format
(Annex 15, section 13). Sorting them takes quadratic time, and no language has as many."""
LONGEST_DECOMPOSITION = 4
"""The most characters of which normalisation makes one (U+1F82 is a letter and three marks)."""
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
"""Letters, marks and symbols that show nothing: Hangul fillers, the empty Braille pattern, the
grapheme joiner, Khmer's inherent vowels."""
_JOINER = "\u200d"
_SELECTORS = (("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef"))
"""Variation selectors, from first to last: they change how what is before them looks."""
_SKINS = ("\U0001f3fb", "\U0001f3ff")
_FLAGS = ("\U0001f1e6", "\U0001f1ff")
"""Regional indicators: two make a flag."""


def normalised_text(text: str, max_chars: int) -> str:
    """Returns the beginning of the normalised text, of at most `max_chars` characters.

    It does not end within what people see as one character, unless that one is longer.
    """
    read = _spaced(text)
    enough = LONGEST_DECOMPOSITION * max_chars + MARKS_IN_A_ROW
    if len(read) > MARKS_IN_A_ROW and not read.isascii():
        read = _stream_safe(read, enough)
    composed = _nfkc(read[:enough])[:enough]  # one character may become 18
    read = _spaced(_nfkc(composed.casefold()))
    return read if len(read) <= max_chars else read[: _end_of_last(read, max_chars)]


def is_visible(text: str) -> bool:
    """Returns whether any character of a text shows something: white space, control and format
    characters, variation selectors and fillers do not."""
    return any(map(_shows, text))


def _shows(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp"):
        return False
    return character not in _BLANK and not _is_selector(character)


def _is_selector(character: str) -> bool:
    return any(first <= character <= last for first, last in _SELECTORS)


def _stream_safe(text: str, enough: int) -> str:
    """Returns the text, as far as it is needed, without marks beyond `MARKS_IN_A_ROW` in a row."""
    kept: list[str] = []
    row = 0
    for character in text:
        row = row + 1 if unicodedata.combining(character) else 0
        if row <= MARKS_IN_A_ROW:
            kept.append(character)
            if len(kept) == enough:
                break
    return "".join(kept)


def _end_of_last(text: str, most: int) -> int:
    """Returns the largest number of characters, at most `most`, after which a cut separates
    nothing that is seen as one; `most` where there is none. (Unicode Annex 29, in the main.)"""
    end = most
    while end and _belong_together(text, end):
        end -= 1
    return end or most


def _belong_together(text: str, place: int) -> bool:
    """Returns whether the characters before and after this place are seen as one."""
    before, after = text[place - 1], text[place]
    if after == _JOINER or before == _JOINER or _is_selector(after):
        return True
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or _SKINS[0] <= after <= _SKINS[1]:
        return True
    flags = 0
    while flags < place and _is_flag(text[place - flags - 1]):
        flags += 1
    return flags % 2 == 1 and _is_flag(after)


def _is_flag(character: str) -> bool:
    return _FLAGS[0] <= character <= _FLAGS[1]


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _spaced(text: str) -> str:
    return " ".join(text.split())
