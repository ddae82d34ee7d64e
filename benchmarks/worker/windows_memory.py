"""Memory of many full windows, whether it stays, and what a pair costs to take in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.worker.stats import rounded
from benchmarks.worker.windows_feed import Feed, names
from benchmarks.worker.windows_plan import Plan, fitting
from benchmarks.worker.windows_resident import (
    Resident,
    available_bytes,
    bytes_read,
    give_back,
    resident,
    slope,
    write_to_disk,
)
from daemon.turn.ports import Windows
from daemon.turn.streams import StreamId, Streams
from model.serving.engine import Engine

T = TypeVar("T")


class Stopwatch:
    """Wall and CPU time of what is run under it, and how many pairs it took in."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.count = 0

    def run(self, call: Callable[[], T], count: int) -> T:
        """Add one call, which takes in so many."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.count += count
        return result

    def figures(self, of: str) -> dict[str, float]:
        """Rate and CPU time of one."""
        return {
            f"{of}s": self.count,
            f"{of}s_per_s": rounded(self.count / self.wall_s),
            f"cpu_us_per_{of}": rounded(1e6 * self.cpu_s / self.count),
        }


@dataclass(frozen=True, slots=True)
class Room:
    """Windows in memory and the streams over them."""

    plan: Plan
    windows: Windows
    streams: Streams
    ids: list[StreamId]
    feed: Feed


def measure(plan: Plan, spill: Path | None) -> dict[str, Any]:
    """All figures of one process: nothing else was in its memory before."""
    engine = warm_engine(plan, spill)
    per_stream = engine.windows(1).bytes_per_stream
    count, limits = _as_many_as_fit(plan, per_stream, spill)
    feed = Feed(plan)
    before = resident()
    windows = engine.windows(count)
    streams = Streams(plan.shape(), windows, count)
    room = Room(plan, windows, streams, names(plan, count), feed)
    filling = _fill(room)
    filled = resident() - before
    if spill is not None:
        write_to_disk(spill)  # what filling left to be written is not what a pair costs later on
    report = {
        "streams": count,
        "limited_by": limits,
        "windows": type(windows).__name__,
        "bytes_per_stream_reserved": per_stream,
        "filling": filling.figures("pair"),
        "resident_bytes": asdict(filled),
        "resident_bytes_per_stream": _per_stream(filled, count),
        "going_on": _go_on(room, before),
        "append": {str(batch): _append(room, batch) for batch in plan.batches},
    }
    return report if spill is None else report | {"written_out": _written_out(room, before, spill)}


def warm_engine(plan: Plan, spill: Path | None = None) -> Engine:
    """An engine whose first calls are behind it: what they leave in memory is nobody's window."""
    engine = Engine(
        plan.theta(),
        "cpu",
        support_capacity=plan.support_size,
        query_capacity=plan.query_size,
        spill_dir=spill,
    )
    feed, count = Feed(plan), plan.turn_pairs
    streams = Streams(plan.shape(), engine.windows(count), count)
    some = names(plan, count)
    streams.add({id: [feed.pair() for _ in range(plan.window_size)] for id in some})
    streams.slide([(id, [feed.pair()]) for id in some])
    streams.adapt([streams.cut(id) for id in some])
    return engine


def _as_many_as_fit(plan: Plan, per_stream: int, spill: Path | None) -> tuple[int, str | None]:
    memory = available_bytes(Path("/proc/meminfo").read_text())
    limit = f"half of the {memory / 1e9:.1f} GB that could be had"
    if spill is None:
        wanted = min(plan.streams, plan.in_memory_streams)
        count = fitting(wanted, per_stream, memory)
        return count, limit if count < wanted else None
    disk = shutil.disk_usage(spill).free
    count = fitting(plan.streams, per_stream - plan.raw_bytes, memory)
    count = fitting(count, plan.raw_bytes, disk)
    limit += f", and of {disk / 1e9:.1f} GB on the disk"
    return count, limit if count < plan.streams else None


def _only_grown(grown: Resident) -> Resident:
    """Where memory is short the kernel takes libraries' pages too: those were no stream's."""
    file = max(0, grown.file)
    return Resident(grown.anon + file + grown.shmem, grown.anon, file, grown.shmem)


def _per_stream(all: Resident, count: int) -> dict[str, int]:
    return {name: round(value / count) for name, value in asdict(all).items()}


def _fill(room: Room) -> Stopwatch:
    watch = Stopwatch()
    for arrivals in room.feed.full_windows(room.ids, room.plan):
        room.streams.add({id: () for id, _ in arrivals})
        pairs = sum(len(new) for _, new in arrivals)
        watch.run(partial(room.streams.slide, arrivals), pairs)
    return watch


def _go_on(room: Room, before: Resident) -> dict[str, Any]:
    """Pairs for streams chosen by chance, some of which are adapted, and memory meanwhile."""
    plan, append, adapt = room.plan, Stopwatch(), Stopwatch()
    samples, counts, began = [resident() - before], [0], time.monotonic()
    while time.monotonic() < began + plan.going_on_s or len(counts) < 2:
        _turn(room, append, adapt)
        if append.count >= counts[-1] + plan.sample_pairs:
            samples.append(resident() - before)
            counts.append(append.count)
    thousands = [count / 1_000 for count in counts]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "append": append.figures("pair"),
        "adapt": adapt.figures("stream"),
        "growth_share": rounded((samples[-1].anon - samples[0].anon) / max(1, samples[0].anon)),
        "resident_bytes_first": asdict(samples[0]),
        "resident_bytes_last": asdict(samples[-1]),
        "growth_bytes_per_1000_appends": {
            name: rounded(slope(thousands, [getattr(sample, name) for sample in samples]))
            for name in ("all", "anon", "file")
        },
    }


def _turn(room: Room, append: Stopwatch, adapt: Stopwatch) -> None:
    plan = room.plan
    ids = [room.ids[n] for n in room.feed.chosen(len(room.ids), plan.turn_pairs)]
    arrivals = [(id, [room.feed.pair()]) for id in ids]
    append.run(lambda: room.streams.slide(arrivals), len(ids))
    cuts = [room.streams.cut(id) for id in ids[:: plan.adapt_every]]
    adapt.run(lambda: room.streams.adapt(cuts), len(cuts))


def _append(room: Room, batch: int) -> dict[str, float]:
    """Appends of so many pairs at once, each to a window chosen by chance."""
    watch, began = Stopwatch(), time.monotonic()
    x_D, y_E = room.feed.vectors(batch)
    while time.monotonic() < began + room.plan.batch_s:
        slots = room.feed.slots(len(room.ids), batch)
        watch.run(partial(room.windows.append, slots, x_D, y_E), batch)
    return watch.figures("pair")


def _written_out(room: Room, before: Resident, spill: Path) -> dict[str, Any]:
    """What stays in memory once the kernel has taken the features back, and what a pair costs whose
    window's features must be read from the disk."""
    write_to_disk(spill)  # only clean pages can be taken at once
    try:
        give_back(spill)
    except OSError as e:
        return {"refused": f"the kernel does not take pages back when asked: {e}"}
    left, io = _only_grown(resident() - before), Path("/proc/self/io")
    read, watch, began = bytes_read(io.read_text()), Stopwatch(), time.monotonic()
    while time.monotonic() < began + room.plan.cold_s:
        _turn(room, watch, Stopwatch())
    read = bytes_read(io.read_text()) - read
    return {
        "resident_bytes": asdict(left),
        "resident_bytes_per_stream": _per_stream(left, len(room.ids)),
        "append_after": watch.figures("pair"),
        "bytes_read_per_pair_after": round(read / watch.count),
    }
