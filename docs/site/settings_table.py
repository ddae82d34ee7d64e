"""Writes the table of docs/settings.md from the code: `python -m docs.site.settings_table`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.config import PREFIX, Settings

PAGE = Path(__file__).parents[1] / "settings.md"
MARKED = re.compile(r"(?<=<!-- settings -->\n).*?(?=\n<!-- /settings -->)", re.DOTALL)
HEADING = "| variable | allowed | default | why |\n|---|---|---|---|"
ALLOWED_TEXT = {
    "redis_url": "URL: redis://, rediss:// or unix://",
    "device": "auto, cpu, cuda or cuda:N",
}
"""What to say where the schema has only a pattern, or nothing."""


def render() -> str:
    """Returns the table in Markdown: a row for each setting, in the order of the code."""
    properties: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
    rows = (_row(name, schema) for name, schema in properties.items())
    return "\n".join((HEADING, *rows))


def inserted(page: str) -> str:
    """Returns the page's text with the table between its two markers."""
    return MARKED.sub(lambda _: render(), page, count=1)


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
    PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
