"""A worker follows a canary: ready once, refused once, judged by all evidence, perhaps acted on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest

from daemon.adapters.memory import MemoryEvidence, MemoryMetaInits, MemoryRecord
from daemon.canary import operate as canaries
from daemon.canary.follow import (
    RETRY_MS,
    CanaryActed,
    CanaryFollower,
    CanaryJudged,
    CanaryNews,
    CandidateGone,
    CandidateReady,
    CandidateRefused,
)
from daemon.errors import Misconfigured, RefusedMetaInit, Unavailable
from daemon.thetas import operate
from daemon.wire.canary import CANDIDATE_KEY, Canary, encode_canary
from daemon.wire.meta_init import ACTIVE_KEY
from model.theta.info import info_of
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import meta_init_to_bytes
from tests.canary.lab import evidence, judging, record

HOUR = canaries.HOUR_MS


def theta(version: str, seed: int = 0, dims: tuple[int, int] = (3, 2)) -> MetaInit:
    return replace(fresh_meta_init(*dims, 4, seed=seed), version=version)


OLD, NEW, NEXT, WIDE = theta("old", 1), theta("new", 2), theta("next", 3), theta("wide", 4, (5, 2))


class Site:
    """The two topics, a clock, and workers of one group."""

    def __init__(self) -> None:
        self.topic, self.log, self.now_ms = MemoryMetaInits(), MemoryEvidence(), 10 * HOUR
        for one in (OLD, NEW, NEXT, WIDE):
            operate.publish_theta(self.topic, one, meta_init_to_bytes(one))
        self.activate("old")

    def activate(self, version: str) -> None:
        operate.activate_theta(self.topic, version, by="me", now_ms=self.now_ms)

    def begin(self, version: str = "new", share: float = 0.3) -> Canary:
        return canaries.begin_canary(
            self.topic, version, share=share, hours=2.0, by="me", now_ms=self.now_ms
        )

    @property
    def canary(self) -> Canary:
        found = self.topic.catalogue().canary
        assert found is not None
        return found

    @property
    def active(self) -> str:
        found = self.topic.catalogue().active
        assert found is not None
        return found.version

    def speak(self, ds: Sequence[float], canary: Canary | None = None) -> None:
        canary = canary or self.canary
        for stream, d in zip(islice(judging(canary), len(ds)), ds, strict=True):
            said = record(len(self.log.log), stream, evidence(d, canary), canary, self.now_ms)
            self.log.log.append(said)


class Worker:
    """What follows canaries in one worker, which serves what is active."""

    def __init__(self, site: Site, *, auto: bool = False, leads: bool = True) -> None:
        self.site, self.log = site, MemoryEvidence(site.log.log)
        self.follower = CanaryFollower(
            (site.topic, self.log),
            self.prepare,
            lambda: site.now_ms,
            "canary@w" if auto else None,
        )
        self.broken: RefusedMetaInit | None = None
        self.follower.led_by(lambda: leads)
        self.serve(OLD)

    def prepare(self, theta: MetaInit) -> str:
        if self.broken:
            raise self.broken
        return theta.version

    def serve(self, theta: MetaInit) -> None:
        self.follower.serves(info_of(theta, "mse"))

    def poll(self) -> list[CanaryNews[str]]:
        self.follower.poll(self.site.topic.catalogue())
        return list(self.follower.news())


@pytest.fixture
def site() -> Site:
    return Site()


def kinds(news: Sequence[CanaryNews[str]]) -> list[type]:
    return [type(each) for each in news]


def test_a_candidate_is_made_ready_once_and_judged_by_everybodys_evidence(site: Site) -> None:
    worker = Worker(site)
    assert worker.poll() == []
    canary = site.begin()
    news = worker.poll()
    assert kinds(news) == [CanaryJudged, CanaryJudged, CandidateReady]
    assert news[-1] == CandidateReady(canary, "new")
    assert worker.poll() == []
    site.speak([0.3] * 10)
    (judged,) = worker.poll()
    assert isinstance(judged, CanaryJudged)
    assert judged.standing is not None
    assert judged.standing.streams == 10
    assert worker.poll() == []


def test_a_verdict_ends_the_judging_and_by_default_nothing_else(site: Site) -> None:
    worker = Worker(site)
    site.begin()
    worker.poll()
    site.speak([0.3] * 250)
    assert kinds(worker.poll()) == [CanaryJudged, CandidateGone]
    assert worker.poll() == []
    assert site.active == "old"
    assert site.canary.ended is None


@pytest.mark.parametrize(
    ("version", "reason"),
    [("wide", "other_dimensions"), ("gone", "missing")],
)
def test_a_candidate_that_cannot_be_judged_is_refused_once(
    site: Site, version: str, reason: str
) -> None:
    worker = Worker(site)
    canary = replace(site.begin(), version=version, epoch=site.canary.epoch + 1)
    if version == "wide":
        canary = replace(canary, content_hash=WIDE.content_hash)
    site.topic.write(CANDIDATE_KEY, encode_canary(canary))
    refused = worker.poll()[-1]
    assert isinstance(refused, CandidateRefused)
    assert refused.reason == reason
    assert worker.poll() == []


def test_a_candidate_of_another_content_than_was_put_on_trial_is_refused(site: Site) -> None:
    worker = Worker(site)
    site.topic.write(CANDIDATE_KEY, encode_canary(replace(site.begin(), content_hash="ab" * 32)))
    refused = worker.poll()[-1]
    assert isinstance(refused, CandidateRefused)
    assert refused.reason == "wrong_hash"


def test_without_a_topic_of_evidence_it_is_refused_and_tried_again_later(site: Site) -> None:
    worker = Worker(site)
    worker.log.missing = True
    site.begin()
    refused = worker.poll()[-1]
    assert isinstance(refused, CandidateRefused)
    assert refused.reason == "no_evidence"
    worker.log.missing = False
    assert CandidateReady not in kinds(worker.poll())
    site.now_ms += RETRY_MS
    assert kinds(worker.poll()) == [CandidateReady]


def test_what_the_loop_gave_up_is_tried_again_later(site: Site) -> None:
    worker = Worker(site)
    site.begin()
    worker.poll()
    worker.follower.failed()
    assert worker.poll() == []
    site.now_ms += RETRY_MS
    assert kinds(worker.poll()) == [CandidateReady]


def test_it_is_judged_beside_the_theta_it_is_on_trial_against_alone(site: Site) -> None:
    worker = Worker(site)
    canary = site.begin()
    worker.poll()
    worker.serve(NEXT)
    assert worker.poll() == []  # no candidate was ready beside this one
    worker.serve(OLD)
    assert worker.poll() == [CandidateReady(canary, "new")]
    site.activate("next")
    assert kinds(worker.poll()) == [CandidateGone]


def test_an_abort_and_the_end_of_its_time_end_it(site: Site) -> None:
    worker = Worker(site)
    canary = site.begin()
    worker.poll()
    assert canaries.end_canary(site.topic, canary, "aborted", now_ms=site.now_ms)
    assert not canaries.end_canary(site.topic, canary, "aborted", now_ms=site.now_ms)
    assert kinds(worker.poll()) == [CanaryJudged, CandidateGone]
    again = site.begin()
    assert again.attempt == canary.attempt + 1
    assert CandidateReady in kinds(worker.poll())
    site.now_ms = again.until_ms + 1
    assert kinds(worker.poll()) == [CandidateGone]
    assert site.begin("next").attempt == 3


def test_evidence_of_an_earlier_trial_does_not_count(site: Site) -> None:
    first = site.begin()
    site.speak([0.3] * 100)
    canaries.end_canary(site.topic, first, "aborted", now_ms=site.now_ms)
    site.now_ms += 1
    site.begin()
    judged = [each for each in Worker(site).poll() if isinstance(each, CanaryJudged)]
    assert judged[-1].standing is not None
    assert judged[-1].standing.streams == 0


@pytest.mark.parametrize("seed", range(10))
def test_however_the_log_is_cut_and_whenever_it_is_away_the_verdict_is_the_same(
    site: Site, seed: int
) -> None:
    draw = random.Random(seed)
    canary = site.begin()
    ds = [draw.gauss(0.2, 0.1) for _ in range(300)]
    whole = Site()
    whole.begin()
    whole.speak(ds, canary)
    expected = Worker(whole).poll()[1]
    worker, seen = Worker(site), list[CanaryJudged]()
    site.speak(ds)
    log, worker.log.log = list(site.log.log), []
    while log or not seen:
        taken = draw.randrange(40)
        worker.log.log += log[:taken]
        log = log[taken:]
        if draw.random() < 0.2:
            worker.log.down = True
            with pytest.raises(Unavailable):
                worker.poll()
            worker.log.down = False
        if draw.random() < 0.1:  # another worker takes over
            kept, worker = worker.log.log, Worker(site)
            worker.log.log = kept
        seen += [each for each in worker.poll() if isinstance(each, CanaryJudged)]
    assert isinstance(expected, CanaryJudged)
    assert expected.standing is not None
    found = seen[-1].standing
    assert found is not None
    assert found.known() == expected.standing.known()


def test_auto_promotes_what_has_won_once_and_the_former_theta_watches(site: Site) -> None:
    workers = [Worker(site, auto=True), Worker(site, auto=True, leads=False)]
    site.begin()
    site.speak([0.3] * 250)
    for worker in (*workers, *workers):
        worker.poll()
    assert site.active == "new"
    watch = site.canary
    assert (watch.watch, watch.version, watch.against) == (True, "old", "new")
    assert sum(r.key == ACTIVE_KEY.encode() for r in site.topic.log) == 2
    for worker in workers:
        worker.serve(NEW)
        assert CandidateReady(watch, "old") in worker.poll()


def watched(site: Site) -> Worker:
    worker = Worker(site, auto=True)
    site.begin()
    site.speak([0.3] * 250)
    assert CanaryActed("new", "promoted") in worker.poll()
    worker.serve(NEW)
    worker.poll()
    site.now_ms += 1
    return worker


def test_a_theta_that_turns_out_worse_is_put_back_and_quarantined(site: Site) -> None:
    worker = watched(site)
    site.speak([0.3] * 250)  # the one before it is better
    assert CanaryActed("new", "rolled_back") in worker.poll()
    assert site.active == "old"
    assert site.canary.ended == "rolled_back"
    assert site.canary.quarantined == (NEW.content_hash,)
    with pytest.raises(Misconfigured, match="rolled back on evidence"):
        site.begin("new")
    assert site.begin("next").quarantined == (NEW.content_hash,)


def test_a_theta_that_holds_is_watched_no_longer(site: Site) -> None:
    worker = watched(site)
    site.speak([-0.3] * 250)
    assert CanaryActed("new", "held") in worker.poll()
    assert (site.active, site.canary.ended) == ("new", "held")
    assert site.begin("next").attempt == 1


def test_what_has_lost_is_ended_by_auto(site: Site) -> None:
    worker = Worker(site, auto=True)
    site.begin()
    site.speak([-0.3] * 50)
    assert CanaryActed("new", "rejected") in worker.poll()
    assert (site.active, site.canary.ended) == ("old", "rejected")
    assert site.begin("new").attempt == 2


def test_a_leader_that_died_between_two_writes_is_finished_by_the_next(site: Site) -> None:
    canary = site.begin()
    site.speak([0.3] * 250)
    site.activate("new")  # and then it died
    worker = Worker(site, auto=True)
    worker.serve(NEW)
    worker.poll()
    assert site.canary.watch
    site.now_ms += 1
    site.speak([0.3] * 250)
    operate.rollback_theta(site.topic, by="w", now_ms=site.now_ms)  # and then it died
    worker = Worker(site, auto=True)
    assert CanaryActed("new", "rolled_back") in worker.poll()
    assert site.canary.quarantined == (canary.content_hash,)


def test_an_operator_who_activates_another_theta_has_the_last_word(site: Site) -> None:
    worker = Worker(site, auto=True)
    site.begin()
    site.speak([0.3] * 250)
    site.activate("next")
    worker.serve(NEXT)
    for _ in range(3):
        worker.poll()
    assert site.active == "next"
    assert not site.canary.watch


def test_without_the_right_to_write_auto_leaves_it_to_people(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(site, auto=True)
    site.begin()
    site.speak([0.3] * 250)

    def refuse(*_: object) -> None:
        raise Misconfigured("kafka: this user lacks the right WRITE")

    monkeypatch.setattr(site.topic, "write", refuse)
    assert CandidateRefused in kinds(worker.poll())
    assert worker.poll() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"share": 0.5}, "at most 0.3"),
        ({"share": float("nan")}, "at most 0.3"),
        ({"hours": 0.0}, "must be above 0"),
        ({"hours": 1e6}, "at most 144"),
        ({"version": "old"}, "active already"),
        ({"version": "wide"}, "source_dim"),
        ({"version": "none"}, "no θ 'none'"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(
    site: Site, change: dict[str, object], says: str
) -> None:
    wanted = {"version": "new", "share": 0.1, "hours": 1.0} | change
    with pytest.raises(Misconfigured, match=says):
        canaries.begin_canary(site.topic, by="me", now_ms=site.now_ms, **wanted)  # type: ignore[arg-type]
    assert site.topic.catalogue().canary is None


def test_one_trial_at_a_time_and_only_against_an_active_theta(site: Site) -> None:
    site.begin()
    with pytest.raises(Misconfigured, match="on trial already"):
        site.begin("next")
    site.topic.write(ACTIVE_KEY, None)
    with pytest.raises(Misconfigured, match="no θ is active"):
        site.begin("next")


def test_a_record_that_is_no_record_is_nothing(site: Site) -> None:
    worker = Worker(site)
    site.begin()
    site.log.log += [MemoryRecord(0, site.now_ms, None, None), MemoryRecord(1, 0, b"x", b"y")]
    assert CandidateReady in kinds(worker.poll())
