from __future__ import annotations

from typing import Any

import pytest

from daemon.demo.reports import (
    DeadLetterReceived,
    EventScored,
    MappingInvalid,
    MappingReceived,
    ProducerFinished,
    WorkerScraped,
)
from daemon.demo.scores import METHODS, ScenarioScores
from daemon.demo.summary import failed_checks, summarise

PerfectRun = Any


def failures(run: PerfectRun) -> list[str]:
    return list(failed_checks(run.progress()))


def test_a_perfect_run_fails_nothing(run: PerfectRun) -> None:
    assert failures(run) == []


def test_a_perfect_run_is_complete(run: PerfectRun) -> None:
    assert run.progress().missing() is None


def test_a_tenant_without_a_mapping_fails(run: PerfectRun) -> None:
    run.mappings = [m for m in run.mappings if m.stream not in ("tenant-02", "uk")]
    assert "tenants: no mapping for tenant-02" in failures(run)
    assert "names: no mapping for uk" in failures(run)


@pytest.mark.parametrize("adapted", [True, False])
def test_adapted_mappings_no_better_than_theta_fail(run: PerfectRun, adapted: bool) -> None:
    hits = {"adapted": adapted, "theta": True, "ridge": False}
    run.scored = [EventScored("tenants", s.stream, s.support_pairs, hits) for s in run.scored]
    (failure,) = failures(run)
    assert "do not beat θ" in failure


def test_scores_below_sixteen_pairs_do_not_count(run: PerfectRun) -> None:
    run.scored = [EventScored("tenants", s.stream, 15, s.hits) for s in run.scored]
    assert failures(run) == ["tenants: nothing was scored at 16 or more pairs"]


def test_every_tenant_weighs_the_same_against_theta(run: PerfectRun) -> None:
    worse = {"adapted": False, "theta": True, "ridge": False}
    run.scored = [s for s in run.scored if s.stream == "tenant-01"]
    run.scored += [EventScored("tenants", "tenant-02", 16, worse)] * 3
    (failure,) = failures(run)
    assert "0.500) do not beat θ (0.500)" in failure


def test_an_event_the_daemon_did_not_accept_fails(run: PerfectRun) -> None:
    run.figures["tenants"]["accepted"] = 5
    assert failures(run) == ["tenants: the daemon accepted 5 of 6 good events"]
    assert "accepted" in str(run.progress().missing())


def test_an_event_counted_twice_fails(run: PerfectRun) -> None:
    run.figures["tenants"]["pairs_new"] = 7
    assert failures(run) == ["tenants: the daemon took into windows 7 of 6 good events"]


def test_without_a_scrape_nothing_is_accounted_for(run: PerfectRun) -> None:
    run.figures = {}
    assert len(failures(run)) == 4


def test_an_event_that_was_never_produced_fails(run: PerfectRun) -> None:
    run.finished = ProducerFinished({"tenants": 5, "names": 12}, run.finished.last_offsets)
    assert failures(run) == ["tenants: the producer produced 5 of 6 good events"]


def test_an_event_that_the_subscriber_never_read_fails(run: PerfectRun) -> None:
    run.scored.pop()
    assert failures(run) == ["tenants: the subscriber read 5 of 6 good events"]


def test_a_mapping_short_of_the_last_event_fails(run: PerfectRun) -> None:
    last = run.finished.last_offsets | {"tenants": {"tenant-01": 40, "tenant-02": 44}}
    run.finished = ProducerFinished(run.finished.events, last)
    what = "the newest mapping does not reflect the last event of tenant-02"
    assert failures(run) == [f"tenants: {what}"]
    assert run.progress().missing() == "a mapping with the last event of tenant-02"


@pytest.mark.parametrize(
    ("outcome", "behind"),
    [("adapted", True), ("ridge", True), ("worse", False), ("not_finite", False)],
)
def test_a_fallback_stands_until_something_is_better(
    outcome: str, behind: bool, run: PerfectRun
) -> None:
    run.mappings = [m for m in run.mappings if m.stream != "uk"]
    run.mappings.append(MappingReceived("names", "uk", 7, outcome, 1.0, 1.0, 20.0))
    assert len(failures(run)) == behind


@pytest.mark.parametrize(
    ("won", "lost", "fails"), [(0, 0, False), (0, 9, False), (0, 10, True), (20, 42, False)]
)
def test_names_may_lose_to_theta_by_chance_only(
    won: int, lost: int, fails: bool, run: PerfectRun
) -> None:
    both, ours = dict.fromkeys(METHODS, True), {"adapted": True, "theta": False, "ridge": False}
    theirs = {"adapted": False, "theta": True, "ridge": False}
    progress = run.progress()
    names = progress.scenarios["names"]
    names.scores = ScenarioScores()
    for hits, count in ((ours, won), (theirs, lost), (both, 5)):
        for _ in range(count):
            names.scores.add("en", 16, hits)
    found = list(failed_checks(progress))
    assert len(found) == fails
    assert (
        not found or f"of {won + lost} events that only one got right, {lost} are θ's" in found[0]
    )


def test_names_that_were_never_scored_fail(run: PerfectRun) -> None:
    run.names_scored = [EventScored("names", s.stream, 15, s.hits) for s in run.names_scored]
    assert failures(run) == ["names: nothing was scored at 16 or more pairs"]


def test_an_event_of_a_language_counts(run: PerfectRun) -> None:
    run.figures["names"]["accepted"] = 11
    assert failures(run) == ["names: the daemon accepted 11 of 12 good events"]
    assert "/metrics of names" in str(run.progress().missing())


def test_a_missing_dead_letter_fails(run: PerfectRun) -> None:
    run.dead_letters.pop()
    assert failures(run) == ["no dead letter for a PNG cut in half"]
    assert run.progress().missing() == "dead letters (1 more)"


def test_a_dead_letter_with_another_reason_fails(run: PerfectRun) -> None:
    first, second, *_ = run.dead_letters
    swapped = [(first, second.reason), (second, first.reason)]
    run.dead_letters[:2] = [
        DeadLetterReceived("tenants", letter.stream, letter.partition, letter.offset, reason, "")
        for letter, reason in swapped
    ]
    assert len(failures(run)) == 2


def test_a_good_event_among_the_dead_letters_fails(run: PerfectRun) -> None:
    run.dead_letters.append(DeadLetterReceived("names", "uk", 0, 0, "schema", ""))
    assert failures(run) == ["1 good events became dead letters: ['schema']"]


def test_a_malformed_event_that_was_not_produced_fails(run: PerfectRun) -> None:
    run.malformed.pop()
    assert any("4 of 5 malformed events" in failure for failure in failures(run))


def test_a_mapping_that_is_not_valid_fails(run: PerfectRun) -> None:
    run.more = [MappingInvalid("content hash")]
    assert failures(run) == ["a published mapping is not valid: content hash"]


def test_a_scrape_that_got_no_answer_does_not_undo_the_one_before(run: PerfectRun) -> None:
    run.more = [WorkerScraped("names", False, "no answer")]
    assert failures(run) == []
    assert run.progress().not_ready() is not None


def test_the_summary_has_its_fields(run: PerfectRun) -> None:
    summary = summarise(run.progress(), "local", 12.34, [])
    assert summary.ok
    assert (summary.services, summary.tenants, summary.events) == ("local", 2, 6)
    assert (summary.mappings_published, summary.seconds) == (2, 12.3)
    assert summary.dead_letters["not_finite"] == 1
    assert summary.r_at_1["adapted"] == {"4": None, "8": None, "16": 1.0, "32": None, "64": None}
    assert summary.event_to_publish_ms == {"p50": 20.0, "p99": 20.0}
    names = summary.names
    assert (names.languages, names.events, names.mappings_published) == (6, 12, 6)
    assert names.r_at_1["theta"]["16"] == 0.0
    assert names.by_language["uk"].r_at_1 == {"adapted": 1.0, "theta": 0.0, "ridge": 0.0}
    assert (names.by_language["ja"].events, names.by_language["ja"].outcome) == (2, "adapted")


def test_a_fault_outside_the_checks_fails_the_run(run: PerfectRun) -> None:
    summary = summarise(run.progress(), "local", 1.0, ["adaptd exited with 1"])
    assert (summary.ok, summary.failures) == (False, ["adaptd exited with 1"])
