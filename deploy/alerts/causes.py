"""What is done to each installation, and which alerts that must cause."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from daemon.wire.topics import specs
from deploy.alerts.lab import HIDDEN_DIM, SOURCE_DIM, TARGET_DIM, Installation, Plan, wait_for
from deploy.alerts.limits import limit_memory, refusal
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

BURNS = ("FreshnessBurnFast", "FreshnessBurn", "FreshnessBurnSlow", "FreshnessBurnCreeping")
RESTARTS = 3


@dataclass(frozen=True)
class Cause:
    """Something done to the installation of this name, in words and as a function, and the alerts
    (without `Adaptd`) that it causes."""

    installation: str
    words: str
    do: Callable[[Installation], None]
    alerts: Sequence[str]


CONTROL = "calm"
"""Nothing is done to this installation, and no alert may fire for it, until Kafka is frozen."""

PLANS = (
    Plan(CONTROL),
    Plan("late"),
    Plan("misled", {"query_size": 16}, rate=3.0, steps=1, theta_is_right=True),
    Plan("faulty"),
    Plan("untrained", {"gate_ridge": True}),
    Plan("mixed", {"follow_meta_inits": False}),
    Plan(
        "flooded",
        {"kafka_max_poll_records": 5, "turn_interval_ms": 1_000},
        events_per_s=2,
        scale=1e25,
    ),
    Plan("topic"),
    Plan("redis", own_redis=True),
    Plan("patient", {"liveness_max_age_s": 300}, own_redis=True, redis_timeout_ms=40_000),
    Plan("stopped"),
    Plan("crashing"),
    Plan("damaged", {"kafka_client": "librdkafka"}, partitions=8),
)


def _publish_seldom(lab: Installation) -> None:
    """Restarts the worker with a publish interval above the objective's 5 s."""
    lab.workers[-1].kill()
    lab.start_worker(lab.targets[0], publish_interval_ms=12_000)


def _send_junk(lab: Installation) -> None:
    lab.junk = True


def _move_streams(lab: Installation) -> None:
    """Sends streams' events to the partitions that their keys do not lead to."""
    producer = KafkaProducer(bootstrap_servers=lab.kafka)
    for key, value in lab.events(60):
        for partition in range(lab.plan.partitions):
            producer.send(lab.topic, value, key, partition=partition)
    producer.close()


def _activate_other_dimensions(lab: Installation) -> None:
    path = lab.theta.with_suffix(".other.safetensors")
    save_meta_init(fresh_meta_init(SOURCE_DIM + 1, TARGET_DIM, HIDDEN_DIM), path)
    lab.run("meta-init", "publish", str(path), "--activate")


def _serve_two_thetas(lab: Installation) -> None:
    path = lab.theta.with_suffix(".second.safetensors")
    save_meta_init(fresh_meta_init(SOURCE_DIM, TARGET_DIM, HIDDEN_DIM, seed=2), path)
    lab.start_worker(lab.targets[1], meta_init=path)


def _send_too_much(lab: Installation) -> None:
    lab.events_per_s = 30  # a worker of this installation reads five


def _make_the_topic_anew(lab: Installation) -> None:
    lab.producing = False
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        admin.delete_topics([lab.topic])
        wait_for("deleted", lambda: lab.topic not in admin.list_topics(), 10)
        spec = next(s for s in specs(lab.settings, 0) if s.name == lab.topic)
        options = {"num_partitions": lab.plan.partitions, "replication_factor": 1}
        wait_for("made anew", lambda: _created(admin, spec.name, options), 10)
    lab.producing = True


def _created(admin: KafkaAdminClient, name: str, options: dict[str, int]) -> bool:
    try:
        admin.create_topics({name: options})
    except Exception:  # its deletion may still be under way
        return False
    return True


def _remove_unread_records(lab: Installation) -> None:
    """Does what retention does, while the worker cannot read."""
    lab.workers[-1].pause()
    time.sleep(2)  # in which events come
    with KafkaAdminClient(bootstrap_servers=lab.kafka) as admin:
        partitions = range(lab.plan.partitions)
        admin.delete_records({TopicPartition(lab.topic, p): -1 for p in partitions})
    lab.workers[-1].resume()


def _freeze_redis(lab: Installation) -> None:
    assert lab.redis is not None
    lab.redis.pause()


def _stop_the_process(lab: Installation) -> None:
    lab.workers[-1].pause()


def _crash(lab: Installation) -> None:
    for _ in range(RESTARTS):
        lab.workers[-1].kill()
        lab.start_worker(lab.targets[0])
        wait_for("restart", lambda: lab.answers(lab.targets[0]), 180)
        time.sleep(1.5)  # in which it is scraped


def _cut_a_log(lab: Installation) -> None:
    """Cuts the file of a partition while it holds records that nobody has read: the broker knows of
    records that it cannot send."""
    _cut(lab, "3")


def _cut_all_logs(lab: Installation) -> None:
    _cut(lab, "*")


def _cut(lab: Installation, partition: str) -> None:
    lab.workers[-1].pause()
    time.sleep(2)  # in which events come
    lab.producing = False
    time.sleep(0.5)
    for segment in lab.broker.folder.glob(f"data/{lab.topic}-{partition}/*.log"):
        os.truncate(segment, 0)
    lab.workers[-1].resume()
    lab.producing = True


def _leave_little_memory(lab: Installation) -> None:
    limit_memory(lab.workers[-1].pid, used=0.95)


def _nothing(_: Installation) -> None:
    """Is there from the start."""


CAUSES = (
    Cause("misled", "a θ whose steps are far too long", _nothing, ("WorseThanTheta",)),
    Cause("untrained", "a θ that was never trained", _nothing, ("RidgeIsBetter",)),
    Cause("flooded", "events whose numbers overflow", _nothing, ("NotFinite",)),
    Cause("late", "a publish interval of 12 s", _publish_seldom, BURNS),
    Cause("redis", "Redis frozen", _freeze_redis, ("ServiceUnavailable", "NotReady")),
    Cause(
        "patient",
        "Redis frozen, its timeout as long as is allowed",
        _freeze_redis,
        ("LoopStalled", "ServiceUnavailable"),
    ),
    Cause("stopped", "SIGSTOP of the only worker", _stop_the_process, ("Down", "Absent")),
    Cause("faulty", "streams sent to two partitions", _move_streams, ("StreamsMoved",)),
    Cause("faulty", "every event is malformed", _send_junk, ("DeadLetters",)),
    Cause(
        "untrained",
        "a θ of other dimensions activated",
        _activate_other_dimensions,
        ("MetaInitRefused",),
    ),
    Cause("mixed", "a second worker with another θ", _serve_two_thetas, ("MetaInitMismatch",)),
    Cause("misled", "unread records removed", _remove_unread_records, ("RecordsGone",)),
    Cause(
        "damaged",
        "the file of one of eight partitions cut",
        _cut_a_log,
        ("PartitionStuck",),
    ),
    Cause("topic", "the topic deleted and made anew", _make_the_topic_anew, ("LogReplaced",)),
    Cause(
        "flooded",
        "thirty events a second for a worker that reads five",
        _send_too_much,
        ("FallingBehind",),
    ),
)
LATER = (
    Cause("damaged", "the files of all its partitions cut", _cut_all_logs, ("NotConsuming",)),
    Cause("crashing", "SIGKILL three times", _crash, ("CrashLoop",)),
)
"""Done when those of CAUSES have fired: each wants the machine, or an installation, for itself."""
WITH_CGROUPS = (
    Cause(
        "misled",
        "a memory limit just above what it uses",
        _leave_little_memory,
        ("MemoryNearLimit",),
    ),
)
"""Done as well where this process may make cgroups."""
ELSEWHERE = {
    "CpuThrottled": "a quota on a running worker held it back too little",
    "DeviceLost": "needs a GPU",
    "ServedThetaWorse": "its gauge is caused in tests/faults/test_canary.py",
}
"""Alerts that are not caused here, and why; rules_test.yaml and the daemon's tests have them."""


def causes_later() -> tuple[Cause, ...]:
    """Returns what is done when the alerts of CAUSES have fired."""
    return LATER if refusal() else (*WITH_CGROUPS, *LATER)


NOT_STARTED = "absent-pod"
"""A target of Prometheus where nobody listens."""
