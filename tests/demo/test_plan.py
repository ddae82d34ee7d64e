from __future__ import annotations

import itertools
from collections import defaultdict

import pytest

from daemon.adapters.memory import MemoryRecord
from daemon.decoding import decode_record
from daemon.demo.malformed import KINDS, Malformed
from daemon.demo.plan import Plan, Planned, record_value, schedule, tenant
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import EventLimits
from model.data import emoji
from model.engine import Engine
from model.meta_init import load, shipped

PLAN = Plan(tenants=3, events_per_tenant=12, seconds=6.0)
LIMITS = EventLimits(max_event_bytes=1_000_000, max_pairs=64)


@pytest.fixture(scope="module")
def planned() -> list[Planned]:
    return list(schedule(PLAN))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load(shipped()), "cpu")


def test_every_tenant_gets_its_events_and_repeats_no_concept(planned: list[Planned]) -> None:
    concepts = defaultdict(list)
    for event in planned:
        if event.malformed is None:
            concepts[event.tenant].append(event.concept)
    assert set(concepts) == set(PLAN.names())
    for shown in concepts.values():
        assert len(shown) == len(set(shown)) == PLAN.events_per_tenant


def test_only_training_concepts_that_twemoji_draws_are_shown(planned: list[Planned]) -> None:
    assert {event.concept for event in planned} <= set(emoji.drawn_by("twemoji", "train").tolist())


def test_events_are_due_steadily(planned: list[Planned]) -> None:
    due = [event.due_s for event in planned if event.malformed is None]
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert due[0] == 0.0
    assert gaps == pytest.approx([PLAN.seconds / PLAN.events] * (PLAN.events - 1))


def test_each_kind_of_malformed_event_comes_once_and_apart(planned: list[Planned]) -> None:
    places = [i for i, event in enumerate(planned) if event.malformed is not None]
    assert tuple(planned[i].malformed for i in places) == KINDS
    assert min(after - before for before, after in itertools.pairwise(places)) > 2


def test_the_same_plan_gives_the_same_records(planned: list[Planned]) -> None:
    assert planned == list(schedule(PLAN))
    assert planned != list(schedule(Plan(tenants=3, events_per_tenant=12, seconds=6.0, seed=1)))


def test_more_events_than_concepts_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 796 events"):
        list(schedule(Plan(events_per_tenant=797)))


def test_a_name_gives_its_tenant_and_no_other_name_does() -> None:
    assert tenant("tenant-01") != tenant("tenant-02")
    with pytest.raises(ValueError, match="no tenant of the demo"):
        tenant("somebody")


def decode(planned: Planned, engine: Engine) -> tuple[int, list[str]]:
    record = MemoryRecord(0, 0, planned.tenant.encode(), record_value(planned))
    decoded = decode_record(0, record, LIMITS, engine)
    return (0, [decoded.error.reason]) if isinstance(decoded, DeadLetter) else (1, [])


def test_a_planned_event_is_good(planned: list[Planned], engine: Engine) -> None:
    assert decode(planned[0], engine) == (1, [])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.reason)
def test_a_malformed_event_is_refused_for_its_reason(kind: Malformed, engine: Engine) -> None:
    concept = int(emoji.drawn_by("twemoji", "train")[0])
    assert decode(Planned(0.0, "tenant-01", concept, kind), engine) == (0, [kind.reason])
