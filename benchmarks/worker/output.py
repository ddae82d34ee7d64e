"""What a benchmark's command says: progress on stderr, the result on stdout and in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def to_stderr(line: str) -> None:
    """Progress; stdout is for the result."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command's own progress


def put(report: dict[str, Any], out: Path | None) -> None:
    """Print the figures as JSON, and write them to `out` too."""
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n")
    print(text)  # noqa: T201 - the command's result
