from __future__ import annotations

import itertools
import unicodedata
from collections import defaultdict
from dataclasses import replace

import msgspec
import pytest

from daemon.adapters.memory import MemoryRecord
from daemon.demo.plan import (
    Plan,
    PlannedEvent,
    RunConfig,
    read_run_config,
    record_value,
    schedule,
)
from daemon.demo.scenarios import (
    LANGUAGES,
    MALFORMED_KINDS,
    SCENARIOS,
    UNSEEN_LANGUAGES,
    MalformedKind,
    NameScenario,
    ScenarioName,
    TenantScenario,
    planned_events,
    tenant,
    tenant_vectors,
)
from daemon.demo.subscriber import StreamCandidates
from daemon.turn.decoding import decode_record
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.paired_event import EventLimits
from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji.tenants import LOW_RANK_DIM
from model.encoders.build import fresh_encoder_spec
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine

PLAN = Plan(tenants=3, events_per_tenant=12, events_per_language=7, seconds=6.0)
EVENTS: dict[ScenarioName, int] = {"tenants": 3 * 12, "names": 6 * 7}
LIMITS = EventLimits(max_event_bytes=1_000_000, max_pairs=64)
DIM, HIDDEN = 8, 4


@pytest.fixture(scope="module")
def planned() -> list[PlannedEvent]:
    return list(schedule(PLAN))


@pytest.fixture(scope="module")
def engines() -> dict[ScenarioName, Engine]:
    """Untrained, for the demo's modalities."""
    pictures = fresh_encoder_spec("cnn/2", DIM, 0, blocks=((8, True),))
    texts = fresh_encoder_spec("char-gru/1", DIM, 0, buckets=64, width=8, hidden=8)
    theta = replace(
        fresh_theta_of_kind((DIM, HIDDEN, LOW_RANK_DIM)),
        source_modality="image",
        source_encoder=pictures,
    )
    names = replace(
        fresh_theta_of_kind((DIM, HIDDEN, DIM)),
        source_modality="image",
        source_encoder=pictures,
        target_modality="text",
        target_encoder=texts,
    )
    return {"tenants": Engine(theta, "cpu"), "names": Engine(names, "cpu")}


def good(planned: list[PlannedEvent], scenario: ScenarioName) -> list[PlannedEvent]:
    return [event for event in planned if event.scenario == scenario and event.malformed is None]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_stream_gets_its_events_and_repeats_no_concept(
    scenario: ScenarioName, planned: list[PlannedEvent]
) -> None:
    concepts = defaultdict(list)
    for event in good(planned, scenario):
        concepts[event.stream].append(event.concept)
    assert set(concepts) == set(PLAN.scenarios()[scenario].streams)
    for shown in concepts.values():
        assert len(shown) == len(set(shown)) == EVENTS[scenario] // len(concepts)


def test_only_training_concepts_that_twemoji_draws_are_shown(planned: list[PlannedEvent]) -> None:
    assert {event.concept for event in planned} <= set(emoji.drawn_by("twemoji", "train").tolist())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_events_are_due_steadily(scenario: ScenarioName, planned: list[PlannedEvent]) -> None:
    due = [event.due_s for event in good(planned, scenario)]
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert due[0] == 0.0
    assert gaps == pytest.approx([PLAN.seconds / EVENTS[scenario]] * (EVENTS[scenario] - 1))


def test_both_scenarios_are_produced_at_once(planned: list[PlannedEvent]) -> None:
    assert [event.due_s for event in planned] == sorted(event.due_s for event in planned)
    assert (
        PLAN.events == sum(EVENTS.values()) == sum(map(planned_events, PLAN.scenarios().values()))
    )


def test_each_kind_of_malformed_event_comes_once_and_apart(planned: list[PlannedEvent]) -> None:
    places = [i for i, event in enumerate(planned) if event.malformed is not None]
    assert tuple(planned[i].malformed for i in places) == MALFORMED_KINDS
    assert min(after - before for before, after in itertools.pairwise(places)) > 2


def test_the_same_plan_gives_the_same_records(planned: list[PlannedEvent]) -> None:
    assert planned == list(schedule(PLAN))
    assert planned != list(schedule(msgspec.structs.replace(PLAN, seed=1)))


@pytest.mark.parametrize(
    "plan", [Plan(events_per_tenant=797), Plan(events_per_language=797)], ids=SCENARIOS
)
def test_more_events_than_concepts_are_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match=r"at most 79\d events for each stream"):
        list(schedule(plan))


def test_a_scenario_may_have_no_events() -> None:
    alone = schedule(msgspec.structs.replace(PLAN, events_per_language=0))
    assert {event.scenario for event in alone} == {"tenants"}


def test_a_name_gives_its_tenant_and_no_other_name_does() -> None:
    assert tenant("tenant-01") != tenant("tenant-02")
    with pytest.raises(ValueError, match="no tenant of the demo"):
        tenant("somebody")


def test_languages_are_of_several_scripts_and_some_were_never_trained_on() -> None:
    first = [NameScenario(1).display_name(language, 0)[0] for language in LANGUAGES]
    scripts = {unicodedata.name(character).split()[0] for character in first}
    assert scripts >= {"LATIN", "ARABIC", "CYRILLIC", "DEVANAGARI"}
    assert 0 < len(UNSEEN_LANGUAGES) < len(LANGUAGES)
    assert set(LANGUAGES) - UNSEEN_LANGUAGES <= set(emoji_names.trained_languages())


def test_a_run_config_comes_out_as_it_went_in() -> None:
    run = RunConfig(PLAN, {scenario: {"ADAPTD_REDIS_PREFIX": scenario} for scenario in SCENARIOS})
    assert read_run_config(run.to_json()) == run
    assert run.settings_of("names").redis_prefix == "names"


def decode(planned: PlannedEvent, engines: dict[ScenarioName, Engine]) -> tuple[int, list[str]]:
    value = record_value(PLAN.scenarios()[planned.scenario], planned)
    record = MemoryRecord(0, 0, planned.stream.encode(), value)
    decoded = decode_record(0, record, LIMITS, engines[planned.scenario])
    return (0, [decoded.error.reason]) if isinstance(decoded, DeadLetter) else (1, [])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_planned_event_is_good(
    scenario: ScenarioName, planned: list[PlannedEvent], engines: dict[ScenarioName, Engine]
) -> None:
    assert decode(good(planned, scenario)[0], engines) == (1, [])


@pytest.mark.parametrize("kind", MALFORMED_KINDS, ids=lambda kind: kind.reason)
def test_a_malformed_event_is_refused_for_its_reason(
    kind: MalformedKind, engines: dict[ScenarioName, Engine]
) -> None:
    concept = int(emoji.drawn_by("twemoji", "train")[0])
    spoilt = PlannedEvent(0.0, "tenants", "tenant-01", concept, kind)
    assert decode(spoilt, engines) == (0, [kind.reason])


def test_candidates_are_the_streams_own_vectors(engines: dict[ScenarioName, Engine]) -> None:
    scenario = TenantScenario(2, 1)
    concept = scenario.concept_pool("tenant-02")[5]
    concepts, features_YE = StreamCandidates(scenario, "tenant-02", engines["tenants"]).including(
        concept
    )
    assert concepts[0] == concept
    assert (features_YE == tenant_vectors("tenant-02")[concepts]).all()


def test_candidates_are_the_languages_own_names(engines: dict[ScenarioName, Engine]) -> None:
    scenario, engine = NameScenario(1), engines["names"]
    concept = scenario.concept_pool("ja")[5]
    concepts, features_YE = StreamCandidates(scenario, "ja", engine).including(concept)
    names = [engine.prepare("target", "text", scenario.display_name("ja", c)) for c in concepts]
    assert (features_YE == engine.encode("target", names)).all()
