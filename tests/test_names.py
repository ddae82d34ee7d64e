"""One public name, one meaning: no public class or function is defined in two files."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "daemon", "model")
ALLOWED = {
    "main": "where a process starts; nothing imports it",
}
"""Names defined more than once, each with the reason why no reader is misled."""


def definitions() -> dict[str, list[str]]:
    """Returns the files that define each public top-level class or function, by its name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in (each for package in PACKAGES for each in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_public_name_is_defined_twice() -> None:
    twice = {name: files for name, files in definitions().items() if len(files) > 1}
    assert not {name: files for name, files in twice.items() if name not in ALLOWED}


def test_every_allowed_name_is_still_defined_twice() -> None:
    found = definitions()
    assert all(len(found.get(name, ())) > 1 for name in ALLOWED)
