"""A run of the demo as its processes would tell it, without processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from daemon.demo.board import Board
from daemon.demo.malformed import KINDS
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
from daemon.demo.plan import Plan

PLAN = Plan(tenants=2, events_per_tenant=3)
LAST = {"tenant-01": 40, "tenant-02": 41}


@dataclass
class Story:
    """News of a perfect run; tests spoil it."""

    scored: list[Scored] = field(
        default_factory=lambda: [
            Scored(name, 16, {"adapted": True, "theta": False, "ridge": False})
            for name in LAST
            for _ in range(PLAN.events_per_tenant)
        ]
    )
    mapped: list[Mapped] = field(
        default_factory=lambda: [
            Mapped(name, version, "adapted", 1.0, 0.5, 20.0) for name, version in LAST.items()
        ]
    )
    injected: list[Injected] = field(
        default_factory=lambda: [
            Injected(0, i, kind.what, kind.reason) for i, kind in enumerate(KINDS)
        ]
    )
    dead_letters: list[DeadLettered] = field(
        default_factory=lambda: [
            DeadLettered("tenant-01", 0, i, kind.reason, "") for i, kind in enumerate(KINDS)
        ]
    )
    finished: Finished = field(default_factory=lambda: Finished(PLAN.events, LAST))
    figures: dict[str, float] = field(
        default_factory=lambda: {"accepted": PLAN.events, "pairs_new": PLAN.events}
    )
    more: list[News] = field(default_factory=list)

    def board(self) -> Board:
        board = Board(PLAN)
        first: list[News] = [Listening(), *self.injected, self.finished]
        scraped = Scraped(True, "", self.figures)
        for news in (*first, *self.mapped, *self.scored, *self.dead_letters, scraped, *self.more):
            board.take(news)
        return board


@pytest.fixture
def story() -> Callable[[], Story]:
    return Story
