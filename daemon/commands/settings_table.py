"""The README's table of settings, made from `daemon.config`: it cannot fall behind.

`python -m daemon.commands.settings_table` prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from daemon.config import PREFIX, Settings

HEADING = "| variable | allowed | default | why |\n|---|---|---|---|"
ALLOWED_TEXT = {
    "redis_url": "URL: redis://, rediss:// or unix://",
    "device": "auto, cpu, cuda or cuda:N",
}
"""Where the schema has a pattern, or nothing, to say what a person would."""


def render() -> str:
    """Every setting in a row of Markdown, in the order of the code."""
    properties: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    rows = (_row(name, schema) for name, schema in properties.items())
    return "\n".join((HEADING, *rows))


def _row(name: str, schema: dict[str, Any]) -> str:
    cells = (
        f"`{PREFIX}{name.upper()}`",
        ALLOWED_TEXT.get(name) or ", ".join(_allowed(schema)),
        _default(name),
        " ".join(schema["description"].split()),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(schema: dict[str, Any]) -> Iterator[str]:
    for kind in schema.get("anyOf", [schema]):
        if "enum" in kind or "const" in kind:
            yield from kind.get("enum", [kind.get("const")])
        elif kind["type"] == "boolean":
            yield from ("true", "false")
        elif kind["type"] in ("integer", "number"):
            yield f"{kind['minimum']:.0f} to {kind['maximum']:.0f}"
        elif kind["type"] != "null":
            yield {"path": "file", "password": "secret"}.get(kind.get("format", ""), "text")


def _default(name: str) -> str:
    value = Settings.model_fields[name].default
    if value is None:
        return "unset"
    secret = getattr(value, "get_secret_value", None)
    shown = secret() if secret else value
    return f"`{shown if isinstance(shown, str) else json.dumps(shown)}`"


if __name__ == "__main__":
    sys.stdout.write(render() + "\n")
