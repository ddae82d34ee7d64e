"""A run of the demo as its processes would tell it, without processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from daemon.demo.board import Board
from daemon.demo.malformed import KINDS
from daemon.demo.names import LANGUAGES
from daemon.demo.news import (
    DeadLettered,
    Finished,
    Injected,
    Listening,
    Mapped,
    News,
    Scored,
    Scraped,
)
from daemon.demo.part import PartName
from daemon.demo.plan import Plan

PLAN = Plan(tenants=2, events_per_tenant=3, events_per_language=2)
LAST: dict[PartName, dict[str, int]] = {
    "tenants": {"tenant-01": 40, "tenant-02": 41},
    "names": {language: 50 + n for n, language in enumerate(LANGUAGES)},
}
EACH: dict[PartName, int] = {
    "tenants": PLAN.events_per_tenant,
    "names": PLAN.events_per_language,
}
ALL: dict[PartName, int] = {part: EACH[part] * len(last) for part, last in LAST.items()}
GOOD = {"adapted": True, "theta": False, "ridge": False}


def _scored(part: PartName) -> list[Scored]:
    one_each = [Scored(part, name, 16, GOOD, "🍎", "apple") for name in LAST[part]]
    return [scored for scored in one_each for _ in range(EACH[part])]


@dataclass
class Story:
    """News of a perfect run; tests spoil it. `scored` and `mapped` are the tenants'."""

    scored: list[Scored] = field(default_factory=lambda: _scored("tenants"))
    names_scored: list[Scored] = field(default_factory=lambda: _scored("names"))
    mapped: list[Mapped] = field(
        default_factory=lambda: [
            Mapped(part, name, version, "adapted", 1.0, 0.5, 20.0)
            for part, last in LAST.items()
            for name, version in last.items()
        ]
    )
    injected: list[Injected] = field(
        default_factory=lambda: [
            Injected("tenants", 0, i, kind.what, kind.reason) for i, kind in enumerate(KINDS)
        ]
    )
    dead_letters: list[DeadLettered] = field(
        default_factory=lambda: [
            DeadLettered("tenants", "tenant-01", 0, i, kind.reason, "")
            for i, kind in enumerate(KINDS)
        ]
    )
    finished: Finished = field(default_factory=lambda: Finished(dict(ALL), dict(LAST)))
    figures: dict[PartName, dict[str, float]] = field(
        default_factory=lambda: {
            part: {"accepted": count, "pairs_new": count} for part, count in ALL.items()
        }
    )
    more: list[News] = field(default_factory=list)

    def board(self) -> Board:
        board = Board(PLAN)
        first: list[News] = [Listening(), *self.injected, self.finished]
        last = [Scraped(part, True, "", figures) for part, figures in self.figures.items()]
        scored = (*self.scored, *self.names_scored)
        for news in (*first, *self.mapped, *scored, *self.dead_letters, *last, *self.more):
            board.take(news)
        return board


@pytest.fixture
def story() -> Callable[[], Story]:
    return Story
