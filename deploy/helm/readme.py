"""Makes chart/README.md: a table of values, whose meanings are the comments of values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from deploy.helm.render import CHART

OPAQUE = re.compile(r"^(profiles\.\w+|podSecurityContext|securityContext|probes\.\w+|.*resources)$")
"""Values that are shown whole, since their parts are Kubernetes' own."""

HEAD = """\
# The chart of adaptd

Workers of [adaptd](../../README.md), what watches them and what scales them.
[Deploying](../README.md) says how to begin. Written by `make chart` from values.yaml: change that.

A value that is not in this table, or of another type, is refused by its path; values that
contradict each other are refused with what to do about them.

| value | default | meaning |
|---|---|---|
"""


class Value(NamedTuple):
    """One value: its path, its default, and its comment."""

    path: str
    default: Any
    meaning: str


def comments(text: str) -> dict[str, str]:
    """Returns the comment above each key of a YAML text, by the key's path."""
    found: dict[str, str] = {}
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if comment := re.match(r" *# ?(.*)", line):
            above.append(comment[1])
        elif key := re.match(r"( *)([\w.]+):", line):
            indent = len(key[1])
            parents = [*(parent for parent in parents if parent[0] < indent), (indent, key[2])]
            if above:
                found[".".join(name for _, name in parents)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def values() -> Iterator[Value]:
    """Yields the values in the order of values.yaml."""
    text = (CHART / "values.yaml").read_text()
    yield from _parts("", yaml.safe_load(text), comments(text))


def _parts(path: str, default: Any, said: dict[str, str]) -> Iterator[Value]:
    if isinstance(default, dict) and default and not OPAQUE.match(path):
        if path in said:
            yield Value(path, None, said[path])
        for name, part in default.items():
            yield from _parts(f"{path}.{name}".lstrip("."), part, said)
    else:
        yield Value(path, default, said.get(path, ""))


def text() -> str:
    """Returns the page."""
    rows = []
    for path, default, meaning in values():
        shown = "" if default is None else f"`{json.dumps(default)}`"
        rows.append(f"| `{path}` | {shown} | {meaning[:1].upper()}{meaning[1:]} |\n")
    return HEAD + "".join(rows)
