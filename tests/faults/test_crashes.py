"""kill -9 at a random moment in each stage of a turn: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from daemon.local.process import GuardedProcess
from daemon.turn.report import STAGES
from tests.faults.conftest import Install
from tests.faults.lab import (
    LEARNED,
    Pairs,
    Raw,
    Spring,
    assert_newest,
    assert_windows,
    kept_by_reader,
)

SEEDS = [str(seed) for seed in range(10)]
STREAMS, EVENTS, PARTITIONS = 48, 14, 5
EXPLODING = "stream-7"


def events() -> list[Pairs | Raw]:
    """Streams begin and end all along the topic, so that wherever a crash comes it hits some
    stream's last event. One in five events has several pairs; one stream's values explode."""
    spring = Spring()
    placed: list[tuple[float, Pairs | Raw]] = []
    for i in range(STREAMS):
        for k in range(EVENTS):
            stream = f"stream-{i}"
            scale = 1e25 if stream == EXPLODING and k >= EVENTS - 4 else 1.0
            event = spring.event(stream, pairs=3 if (i + k) % 5 == 0 else 1, scale=scale)
            placed.append((i + 0.4 * k, event))
            if k == 5 and i % 3 == 0:
                placed.append((i + 0.4 * k, Raw(stream.encode(), b"\xc1 no MessagePack %d" % i)))
    return [event for _, event in sorted(placed, key=lambda pair: pair[0])]


def test_killed_in_every_stage_it_ends_as_if_undisturbed(install: Install, theta: Path) -> None:
    lab = install(PARTITIONS)
    sent = events()
    lab.send(sent)
    for seed in ("calm", *SEEDS):
        lab.make_topic(f"{lab.settings.kafka_mappings_topic}-{seed}", cleanup="compact")

    lines = run_chains(lab.environment, ["calm", *SEEDS])

    crashes = Counter((line["seed"], line["stage"]) for line in lines if line.get("code") == -9)
    assert crashes == Counter((seed, stage) for seed in SEEDS for stage in STAGES)
    ends = {line["seed"]: line["code"] for line in lines if line.get("stage") == "none"}
    assert ends == dict.fromkeys(["calm", *SEEDS], 0)

    truth = lab.truth.mappings(theta)
    assert truth[EXPLODING].outcome == "not_finite"
    assert sum(shown.outcome in LEARNED for shown in truth.values()) > STREAMS // 2
    calm = None
    for seed in ("calm", *SEEDS):
        windows = lab.windows(group=f"{lab.name}-{seed}")
        assert_windows(windows, lab.truth)
        kept = kept_by_reader(lab.mappings(f"{lab.settings.kafka_mappings_topic}-{seed}"))
        assert_newest(kept, truth)
        calm = calm or windows
        assert windows == calm
    dead = Counter(r.value for r in lab.records(lab.settings.kafka_dead_letters_topic))
    assert dead.keys() == {event.value for event in sent if isinstance(event, Raw)}
    assert min(dead.values()) >= 1 + len(SEEDS)


def run_chains(environment: dict[str, str], seeds: list[str]) -> list[dict[str, str | int]]:
    script = Path(__file__).with_name("crashing_worker.py")
    with GuardedProcess(
        [sys.executable, script, *seeds], env=environment, stdout=subprocess.PIPE, grace_s=0.0
    ) as process:
        assert process.stdout is not None
        lines = [json.loads(line) for line in process.stdout]
        assert process.wait() == 0
    return lines
