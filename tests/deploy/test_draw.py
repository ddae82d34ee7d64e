"""A board is drawn whatever Prometheus answers: values, nothing, or NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from deploy.prometheus.queries import DEPLOY
from deploy.prometheus.server import Prometheus, Vector

pytest.importorskip("matplotlib", exc_type=ImportError)

from deploy.grafana.draw import Span, draw, points

BOARD = json.loads((DEPLOY / "grafana" / "adaptd.json").read_text())
LABELS = {"alertname": "AdaptdDown", "service": "kafka", "partition": "0", "outcome": "ridge"}


class Answers:
    """A Prometheus that gives this value for everything; None: no series."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def query(self, expr: str) -> Vector:
        return [] if self._value is None else [{"metric": LABELS, "value": [100, self._value]}]

    def query_range(self, expr: str, start: float, end: float, step_s: float) -> Vector:
        if self._value is None:
            return []
        values = [[at, self._value] for at in range(int(start), int(end))]
        return [{"metric": LABELS, "values": values}]


@pytest.mark.parametrize("value", ["1", "NaN"])
def test_the_first_board_is_drawn(tmp_path: Path, value: str | None) -> None:
    out = tmp_path / "board.png"
    draw(BOARD, cast(Prometheus, Answers(value)), Span(1_000.0, 1_060.0), out, 10)
    with Image.open(out) as picture:
        assert picture.width > 1_000


def test_what_is_missing_between_two_values_is_a_gap() -> None:
    one = {"values": [[0, "1"], [1, "1"], [9, "2"]]}
    times, values = points(one, Span(0.0, 240.0))
    assert times == [0.0, 1.0, 2.0, 9.0]
    assert [value != value for value in values] == [False, False, True, False]
