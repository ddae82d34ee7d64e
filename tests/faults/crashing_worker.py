"""A chain of workers that kill themselves with SIGKILL, one in each stage of the turn, and a last
one that finishes what they left. Run as a program by test_crashes, on real services.

    crashing_worker.py SEED...    settings as for `adaptd run`; a line of JSON per crash on stdout

torch is imported and θ loaded once; every worker is a fork with clients of its own, made in the
fork. Each seed has its own group and mappings topic: `<group>-<seed>`. The seed "calm" has no
crashes. A dead member would stay in its group for a session timeout, so the fork after it tells
the group (what a broker would find out by itself, only sooner).
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from daemon import config
from daemon.adapters.kafka_python.client import connection_arguments
from daemon.config import Settings
from daemon.errors import Unavailable
from daemon.turn.loop import Loop
from daemon.turn.ports import Polled, Ports
from daemon.turn.report import STAGES, TurnReport
from daemon.wire.record import Message
from daemon.worker.wiring import load_engine, loop_policy, message_builder, open_ports
from model.serving.engine import Engine

Point = Literal["enter", "within", "timer", "exit"]
TIMEOUT_S = 150.0
"""For a chain's next crash, or its end."""


def tell(**facts: object) -> None:
    """One line, written at once, for a fork's buffers are lost with it."""
    os.write(sys.stdout.fileno(), json.dumps(facts).encode() + b"\n")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # not one more instruction of the turn


@dataclass
class Doom:
    """Where this worker dies: at a point of a stage, in its n-th turn that has records."""

    stage: str
    point: Point
    turn: int
    fraction: float
    """`timer`: how far into the stage, as a fraction of what it took before."""
    expected_s: dict[str, float] = field(default_factory=dict)

    def enter(self, stage: str) -> None:
        if stage == self.stage and self.point == "enter":
            die()
        if stage == self.stage and self.point == "timer":
            delay_s = self.fraction * self.expected_s.get(stage, 0.002)
            threading.Timer(delay_s, die).start()

    def exit(self, stage: str, took_s: float) -> None:
        self.expected_s[stage] = took_s
        if stage == self.stage and self.point != "timer":
            die()


class DoomedLoop(Loop):
    """Dies as foretold; with no doom it is the loop."""

    doom: Doom | None = None
    busy_turns = 0

    def _poll(self, report: TurnReport) -> Polled:
        polled = super()._poll(report)
        self.busy_turns += bool(polled.records)
        return polled

    @property
    def time_has_come(self) -> bool:
        return self.doom is not None and self.busy_turns >= self.doom.turn

    @contextmanager
    def _stage(self, report: TurnReport, name: str) -> Iterator[None]:
        if self.doom is not None and self.time_has_come:
            self.doom.enter(name)
        start = time.monotonic()
        with super()._stage(report, name):
            yield
        if self.doom is not None and self.time_has_come:
            self.doom.exit(name, time.monotonic() - start)


def kill_within(ports: Ports, loop: DoomedLoop, doom: Doom) -> None:
    """Make the stage's outside effect half done when death comes."""

    def after_first(call: Callable[..., Any], at_once: bool = False) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            result = call(*arguments)
            if at_once or loop.time_has_come:
                die()
            return result

        return called

    def half(send: Callable[[Sequence[Message]], None]) -> Callable[[Sequence[Message]], None]:
        def sent(messages: Sequence[Message]) -> None:
            if loop.time_has_come:
                send(messages[: round(doom.fraction * len(messages))])
                die()
            send(messages)

        return sent

    store, source, outbox, engine = ports.store, ports.source, ports.outbox, ports.engine
    places: dict[str, tuple[object, str, Callable[..., Any]]] = {
        "poll": (source, "poll", after_first)
        if doom.fraction < 0.5
        else (store, "claim", partial(after_first, at_once=True)),
        "encode": (engine, "encode", after_first),
        "adapt": (engine, "adapt", after_first),
        "slide": (store, "append", after_first),
        "publish": (outbox, "send", half),
        "commit": (source, "commit", after_first),
    }
    if doom.stage in places:
        port, name, deadly = places[doom.stage]
        setattr(port, name, deadly(getattr(port, name)))


def work(settings: Settings, engine: Engine, name: str, doom: Doom | None) -> None:
    """Until doom, or until everything is committed."""
    give_up_at = time.monotonic() + TIMEOUT_S
    with open_ports(settings, engine, name) as ports:
        loop = DoomedLoop(
            loop_policy(settings, engine), ports, message_builder(settings, engine), name
        )
        loop.doom = doom
        if doom is not None and doom.point == "within":
            kill_within(ports, loop, doom)
        everything = range(settings.topic_partitions)
        while time.monotonic() < give_up_at:
            try:
                report = loop.turn()
                if not report.offsets and report.holdings.assigned == len(everything):
                    bounds = ports.source.bounds(everything)
                    if all((b.committed or 0) == b.end for b in bounds.values()):
                        return
            except Unavailable as e:
                tell(unavailable=str(e))
                loop.recover()
                time.sleep(0.1)
    raise TimeoutError


def bury(settings: Settings) -> None:
    """Tell the group that its member is dead."""
    from kafka.admin import KafkaAdminClient, MemberToRemove

    with KafkaAdminClient(**connection_arguments(settings)) as admin:
        group = settings.kafka_group_id
        members = admin.describe_groups([group])[group]["members"]
        if members:
            admin.remove_group_members(
                group, [MemberToRemove(member_id=m["member_id"]) for m in members]
            )


def in_fork(act: Callable[[], None]) -> int:
    """The child's wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            try:
                act()
                code = 0
            except BaseException as e:
                tell(failed=repr(e))
                raise
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def chain(settings: Settings, engine: Engine, seed: str) -> None:
    """Nine crashes in an order and at moments that the seed says, then the rest of the work."""
    rng = random.Random(seed)
    group = f"{settings.kafka_group_id}-{seed}"
    settings = settings.model_copy(
        update={
            "kafka_group_id": group,
            "kafka_mappings_topic": f"{settings.kafka_mappings_topic}-{seed}",
            "publish_interval_ms": rng.choice((0, 100)),
            "kafka_max_poll_records": rng.choice((5, 10, 20)),
            "max_resident_streams": rng.choice((3, 1000)),
        }
    )
    for stage in rng.sample(STAGES, len(STAGES)) if seed != "calm" else ():
        point: Point = rng.choice(("enter", "within", "timer", "exit"))
        doom = Doom(stage, point, turn=rng.randint(1, 2), fraction=rng.random())
        code = in_fork(partial(work, settings, engine, f"{group}-{stage}", doom))
        tell(seed=seed, stage=stage, point=point, turn=doom.turn, code=code)
        in_fork(partial(bury, settings))
    code = in_fork(partial(work, settings, engine, f"{group}-last", None))
    tell(seed=seed, stage="none", code=code)


def main(seeds: Sequence[str]) -> None:
    settings = config.load_settings(None)
    engine = load_engine(settings)
    with open_ports(settings, engine, "rehearsal") as ports:  # what clients do once in a process
        ports.source.poll(1.0, 1)
    gc.freeze()
    chains = []
    for seed in seeds:
        child = os.fork()
        if child == 0:
            chain(settings, engine, seed)
            os._exit(0)
        chains.append(child)
    for child in chains:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
