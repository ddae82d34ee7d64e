"""The documentation's pages, their code blocks, and the commands in them.

A block is fenced and names its language. A shell or Python block is run, unless a comment right
above it says which commands are not, and why:

    <!-- not run: (needs a Kubernetes cluster) -->            the whole block
    <!-- not run: make test, make bench (takes minutes) -->   lines that begin so

Blocks inside a comment `<!-- hidden ... -->` are run and not shown: what a page needs to begin.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
]
REASONS = {
    "is run in README.md": ("adaptd topics create", "adaptd check"),
    "installs packages": (
        "python -m venv",
        "python3 -m venv",
        ".",
        "pip install",
        "apt-get install",
    ),
    "takes minutes": (
        "make",
        "torchrun",
        "adaptd meta-train",
        "adaptd evaluate",
        "python -m model.emoji",
    ),
    "needs a group without workers": ("adaptd offsets",),
    "needs a container engine": ("docker build", "docker compose"),
    "needs a Kubernetes cluster": ("kubectl", "helm"),
}
"""Why commands may be left out, and which ones for that reason."""

FENCE = re.compile(r"^( *)```(\w*)$")
MARK = re.compile(r"^<!-- not run: ?([^(]*?) ?\((.+)\) -->$")
LINE = re.compile(
    r"[^\n]*<<'(\w+)'\n(?:.*?\n)??\1$|(?:[^\n]*\\\n)*[^\n]+", re.DOTALL | re.MULTILINE
)
"""A line with its here-document, or with its continuations."""
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


class Block(NamedTuple):
    """One fenced block: where it stands, and which of its lines are left out."""

    page: str
    line: int
    language: str
    text: str
    skipped: tuple[str, ...] = ()
    """How the lines that are not run begin; "" for all of them."""
    reason: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """The lines that are run."""
        return [line for line in lines_of(self.text) if not line.startswith(self.skipped)]

    @property
    def lines_left_out(self) -> list[str]:
        return [line for line in lines_of(self.text) if line not in self.lines]


def blocks(page: Path) -> Iterator[Block]:
    """Yields the page's blocks in order."""
    name, lines = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        if opened := FENCE.match(lines[i]):
            end = next(k for k in range(i + 1, len(lines)) if lines[k] == f"{opened[1]}```")
            text = "\n".join(line.removeprefix(opened[1]) for line in lines[i + 1 : end])
            mark = MARK.match(lines[i - 1].strip())
            left_out = (tuple(mark[1].split(", ")), mark[2]) if mark else ()
            yield Block(name, i + 1, opened[2], text, *left_out)
            i = end
        i += 1


def prose(page: Path) -> str:
    """Returns the page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^( *)```\w*\n.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(page: Path) -> set[str]:
    """Returns what stands between single backquotes outside blocks."""
    return set(SPAN.findall(prose(page)))


def lines_of(script: str) -> list[str]:
    """Returns the script's lines, each with its continuations and here-document, if any."""
    return [match[0] for match in LINE.finditer(script) if not match[0].lstrip().startswith("#")]


def commands(line: str) -> list[list[str]]:
    """Returns the words of each command of a line, without redirections and comments."""
    plain = re.sub(r"<<'\w+'\n.*", "", line.replace("\\\n", " "), flags=re.DOTALL)
    lexer = shlex.shlex(plain, None, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return [without_redirections(words) for words in found]


def without_redirections(words: list[str]) -> list[str]:
    """Returns the words before the first redirection."""
    return words[: next((i for i, word in enumerate(words) if set(word) <= set("<>")), None)]
