"""Shape letters have one meaning each: every file's legend agrees with `model.values.shapes`.

A legend is the paragraph of a module's docstring that begins with `X = `; it lists, in the words of
the table, at least the letters that the suffixes of the file's names are made of. Tests may do
without one.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from model.values.shapes import LETTERS

ROOT = Path(__file__).parent.parent
FOLDERS = ("benchmarks", "daemon", "examples", "model", "tests")
SUFFIX = re.compile(r"_*[a-z]\w*_([A-Z0-9]*[A-Z][A-Z0-9]*)")
NO_SHAPES = {"do_GET", "do_HEAD"}
"""Names that others chose, and that end in capitals without being arrays."""


def legend(docstring: str) -> str | None:
    """Returns the docstring's legend as one line; None where it has none."""
    paragraphs = (" ".join(part.split()) for part in docstring.split("\n\n"))
    return next((part for part in paragraphs if re.match(r"[A-Z](, [A-Z])* = ", part)), None)


def meanings(line: str) -> list[tuple[str, str]]:
    """Returns a legend's letters and what it says they mean, less what stands in parentheses."""
    bare = re.sub(r" ?\([^)]*\)", "", line)
    entries = re.split(r"; |(?<!\+)[,;:]? (?=[A-Z](?:, [A-Z])* = )", bare)
    split = [entry.partition(" = ") for entry in entries if re.match(r"[A-Z]\b", entry)]
    return [(letter, text) for letters, _, text in split for letter in letters.split(", ")]


def suffix_letters(source: str) -> dict[str, str]:
    """Returns every letter in a suffix of a name, with the first name that has it."""
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        suffix = SUFFIX.fullmatch(token.string) if token.type == tokenize.NAME else None
        if suffix and token.string not in NO_SHAPES:
            for letter in filter(str.isalpha, suffix[1]):
                found.setdefault(letter, token.string)
    return found


def faults(source: str, needs_legend: bool = True) -> list[str]:
    """Returns what is wrong with a file's letters, in lines that say how to mend it."""
    line = legend(ast.get_docstring(ast.parse(source)) or "")
    used = suffix_letters(source)
    if line is None:
        names = ", ".join(used.values())
        return [f"no legend, but names end in {names}"] if used and needs_legend else []
    listed = meanings(line)
    wrong = [
        f"{letter} = {text!r}: {letter} means {LETTERS.get(letter, 'nothing')!r}; rename the "
        f"letter ({letter}=...), or say {letter} = {LETTERS.get(letter)} ({text})"
        for letter, text in listed
        if LETTERS.get(letter) != text
    ]
    missing = [
        f"{name} ends in {letter}, which the legend lacks: {letter} = {LETTERS.get(letter)}"
        for letter, name in used.items()
        if letter not in dict(listed)
    ]
    return wrong + missing


def files() -> list[Path]:
    """Returns every Python file that is held to the table."""
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_legend_has_the_tables_letters_and_every_suffix_is_in_it() -> None:
    found = {str(path.relative_to(ROOT)): path.read_text() for path in files()}
    lines = [
        f"{path}: {fault}"
        for path, source in found.items()
        for fault in faults(source, needs_legend=not path.startswith("tests/"))
    ]
    assert not lines, "letters of shapes, see model/values/shapes.py:\n" + "\n".join(lines)


def test_no_meaning_has_two_letters() -> None:
    assert len(set(LETTERS.values())) == len(LETTERS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Sums.\n\nB = streams in batch, S = support pairs (padded)\n"""\nx_BS1 = 0', ""),
        ('"""Sums.\n\nB = batches\n"""', "B means 'streams in batch'"),
        ('"""Sums.\n\nS, Q = support pairs\n"""', "Q means 'query pairs'"),
        ('"""Sums.\n\nB = streams in batch\n"""\nx_BS = 0', "x_BS ends in S"),
        ('"""Sums."""\nx_S = 0', "no legend, but names end in x_S"),
        ('"""Sums."""\nS = S_MAX = rates_4 = 0', ""),
    ],
)
def test_a_fault_is_found_and_said(source: str, expected: str) -> None:
    assert expected in "".join(faults(source))
    assert bool(expected) == bool(faults(source))
