"""The dashboards' files: where each lies, and what it should hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from deploy.grafana.board import board_json
from deploy.grafana.internals import INTERNALS
from deploy.grafana.overview import OVERVIEW
from deploy.grafana.quality import QUALITY

BOARDS = (OVERVIEW, QUALITY, INTERNALS)
FOLDER = Path(__file__).parent


def board_files() -> Iterator[tuple[Path, str]]:
    """Yields each board's path, and its JSON as the source says now."""
    for board in BOARDS:
        others = [other for other in BOARDS if other is not board]
        made = json.dumps(board_json(board, others), indent=1, ensure_ascii=False)
        yield FOLDER / f"{board.name}.json", made + "\n"
