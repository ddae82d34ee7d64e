"""A daemon at work changes its θ: without a restart, through crashes, and never to a bad one."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import replace
from itertools import pairwise

from model.theta.meta_init import fresh_meta_init
from tests.faults.conftest import Install, Measured
from tests.faults.lab import (
    HIDDEN_DIM,
    SOURCE_DIM,
    TARGET_DIM,
    Worker,
    assert_windows,
    eventually,
)
from tests.faults.swapping import (
    STREAMS,
    Operator,
    bad_ones,
    contents,
    encoding,
    ends_as,
    events,
    features,
    metric,
    refused,
    serves,
    theta_of,
    wait_until_it_begins,
    wait_until_served,
)


def test_another_theta_is_served_without_a_restart_and_back(
    install: Install, measured: Measured
) -> None:
    lab = install(3)
    operator = Operator(lab)
    old, new = theta_of("old", 1), theta_of("new", 2)
    operator.serve(old)
    lab.send(events(8))
    with lab.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, "old")
        ends_as(lab, old)
        life = worker.status()["started_at"]
        windows = lab.windows()

        operator.serve(new)
        took_s = wait_until_served(lab, worker, "new")
        measured(f"another θ: all {len(STREAMS)} streams' mappings renewed {took_s:.1f} s later")
        ends_as(lab, new)
        assert lab.windows() == windows
        assert metric(worker, "adaptd_meta_init_swaps_total") == 1
        assert 'version="new"' in worker.get("/metrics")[1]
        assert 'version="old"' not in worker.get("/metrics")[1]
        assert worker.status()["meta_init_hash"] == new.content_hash

        lab.send(events(3, seed=6))
        lab.wait_until_done()
        eventually(lambda: serves(worker, "new"))
        ends_as(lab, new)

        assert "old: active again instead of new" in operator.says("rollback")
        wait_until_served(lab, worker, "old")
        ends_as(lab, old)
        assert_windows(lab.windows(), lab.truth)
        assert worker.status()["started_at"] == life
        assert metric(worker, "adaptd_meta_init_swaps_total") == 2
        lines = [line["hash"] for line in worker.lines() if line["event"] == "meta_init_served"]
        assert lines == [theta.content_hash[:12] for theta in (old, new, old)]
        worker.stop()


def test_another_encoder_has_windows_encoded_anew_and_the_old_ones_are_there_to_go_back_to(
    install: Install, measured: Measured
) -> None:
    lab, fresh_one = install(3), install(3)
    plain, encoded = theta_of("plain"), encoding("encoded")
    sent = events(14)
    lab.send(sent)
    fresh_one.send(sent)
    Operator(lab).serve(plain)
    Operator(fresh_one).serve(encoded)
    with fresh_one.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(fresh_one, worker, "encoded")
        worker.stop()
    with lab.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, "plain")

        Operator(lab).serve(encoded)
        took_s = wait_until_served(lab, worker, "encoded")
        measured(f"another encoder: {len(sent)} events read and encoded again {took_s:.1f} s later")
        windows = features(lab, encoded.encoder_version)
        assert windows.keys() == set(STREAMS)
        assert windows == features(fresh_one, encoded.encoder_version)
        assert contents(lab) == contents(fresh_one)
        assert lab.committed() == lab.ends()

        more = events(2, seed=6)
        lab.send(more)
        lab.wait_until_done()
        read_so_far = 2 * len(sent) + len(more)
        counted_as_read(worker, read_so_far)
        Operator(lab).says("rollback")
        wait_until_served(lab, worker, "plain")
        ends_as(lab, plain, may_go_back=True)
        # only what came since is read for the old features
        counted_as_read(worker, read_so_far + len(more))
        plain_windows = {stream: len(w) for stream, w in features(lab, "identity").items()}
        assert plain_windows == dict.fromkeys(STREAMS, 10)
        worker.stop()


def counted_as_read(worker: Worker, events: int) -> None:
    """So many and no more; a turn is counted after it has published."""
    line = 'adaptd_events_total{outcome="accepted"}'
    eventually(lambda: metric(worker, line) >= events, 5, lambda: f"{metric(worker, line)} read")
    assert metric(worker, line) == events


def test_a_theta_that_cannot_be_served_is_refused_and_the_old_one_serves_on(
    install: Install,
) -> None:
    lab = install(2)
    operator = Operator(lab)
    good, better = theta_of("good", 1), theta_of("better", 2)
    operator.serve(good)
    with lab.worker() as worker:
        worker.wait_until_ready()
        for number, (reason, writes) in enumerate(bad_ones().items()):
            lab.send(events(4, seed=number))
            for key, value in writes:
                operator.write(key, value)
            eventually(lambda: refused(worker) == reason, 20, worker.tail)  # noqa: B023
            lab.send(events(1, seed=10 + number))
            lab.wait_until_done()
            assert worker.status()["meta_init"] == "good"
            assert worker.get("/readyz")[0] == 200
            count = f'adaptd_meta_init_refusals_total{{reason="{reason}"}}'
            assert metric(worker, count) == 1
        ends_as(lab, good)
        operator.write("@active", b"what?")
        eventually(lambda: refused(worker) == "unreadable", 20, worker.tail)

        operator.serve(better)
        wait_until_served(lab, worker, "better")
        assert worker.status()["meta_init_refused"] is None
        ends_as(lab, better)
        logged = [line["reason"] for line in worker.lines() if line["event"] == "meta_init_refused"]
        assert logged == [*bad_ones(), "unreadable"]
        worker.stop()


def test_a_worker_begins_with_what_is_active_if_it_can_be_served(install: Install) -> None:
    lab = install(2)
    operator = Operator(lab)
    configured = fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM).version
    active = theta_of("active", 3)
    lab.send(events(6))
    operator.serve(active)
    with lab.worker(follow_meta_inits=False) as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, configured)
        worker.stop()
    with lab.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, "active")  # also where no event came since
        assert metric(worker, "adaptd_meta_init_swaps_total") == 0
        ends_as(lab, active)
        worker.stop()
    for key, value in bad_ones()["other_dimensions"]:
        operator.write(key, value)
    with lab.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(lab, worker, configured)
        assert refused(worker) == "other_dimensions"
        worker.stop()


def test_killed_amid_a_change_of_theta_it_ends_in_the_same_state(
    install: Install, measured: Measured
) -> None:
    """Killed at random moments from the activation to its last effect, with another θ at each
    life: the last one active is in the end every stream's, to the bit."""
    lab = install(3, max_batch=1, max_wait_ms=0)
    operator = Operator(lab)
    thetas = {"a": theta_of("a", 1), "b": theta_of("b", 2), "c": encoding("c", 3)}
    lab.send(events(7))
    for theta in thetas.values():
        operator.says("publish", operator.file(theta))
    draw, amid = random.Random(1), 0
    for life, (version, then) in enumerate([*pairwise("abcac")]):
        operator.says("activate", version)
        with lab.worker() as worker:
            eventually(lambda: bool(worker.status()), 40, worker.tail)
            operator.says("activate", then)
            if life % 2:
                wait_until_it_begins(worker, then)
                time.sleep(draw.uniform(0.0, 0.05))
            else:
                time.sleep(draw.uniform(0.0, 2.5))
            amid += worker.status().get("streams_to_renew", 0) > 0
            worker.process.send_signal(signal.SIGKILL)
            worker.process.wait(10)
        lab.remove_dead_members()
    measured(f"killed 4 times around a change of θ, {amid} times with streams half renewed")
    for last in ("b", "c"):
        operator.says("activate", last)
        with lab.worker() as worker:
            worker.wait_until_ready(partitions=3)
            wait_until_served(lab, worker, last)
            worker.stop()
        if last == "b":
            ends_as(lab, thetas["b"], may_go_back=True)
    calm = install(3)
    Operator(calm).serve(thetas["c"])
    calm.send(events(7))
    with calm.worker() as worker:
        worker.wait_until_ready()
        wait_until_served(calm, worker, "c")
        worker.stop()
    assert contents(lab) == contents(calm)
    encoder = thetas["c"].encoder_version
    assert features(lab, encoder) == features(calm, encoder)


def test_the_command_line_tells_what_is_published(install: Install) -> None:
    lab = install(1)
    operator = Operator(lab)
    assert "no θ is published" in operator.says("list")
    facts = {"evaluation": json.dumps([{"pairs": 5, "r_at_1": {"adapted": 0.113}}])}
    old = replace(theta_of("old", 1), facts=facts)
    new = replace(theta_of("new", 2), parent="old")
    assert operator.says("publish", operator.file(old)) == "old: published\n"
    assert operator.says("publish", operator.file(old)) == "old: was published already\n"
    operator.serve(new)
    assert operator.says("activate", "new") == "new: active\n".replace(
        "active", "was active already"
    )
    listed = operator.says("list")
    for text in (
        "old",
        "new",
        old.content_hash[:12],
        "R@1 .113 at 5 pairs",
        "● new is active since",
    ):
        assert text in listed
    found = json.loads(operator.says("list", "--json"))
    assert found["active"]["version"] == "new"
    assert [one["parent"] for one in found["published"]] == [None, "old"]
    shown = json.loads(operator.says("show", "old", "--json"))
    assert shown["facts"]["evaluation"] == [{"pairs": 5, "r_at_1": {"adapted": 0.113}}]
    assert shown["content_hash"] == old.content_hash
    assert old.content_hash in operator.says("show", "old")
    assert operator.says("activate", "old") == "old: active, after new\n"
    assert operator.says("delete", "new") == "new: deleted\n"
    assert [one["version"] for one in json.loads(operator.says("list", "--json"))["published"]] == [
        "old"
    ]
