"""Memory of many full windows, whether it stays, and what a pair costs to take in.

D = source dim, E = target dim
"""

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import Resident, available_bytes, proc_numbers, resident
from benchmarks.timing import Stopwatch, rounded
from benchmarks.windows.plan import Feed, WindowsPlan, names
from benchmarks.windows.spill import give_back, write_to_disk
from daemon.turn.ports import Windows
from daemon.turn.streams import StreamId, Streams


@dataclass(frozen=True, slots=True)
class Filled:
    """Windows in memory and the streams over them."""

    plan: WindowsPlan
    windows: Windows
    streams: Streams
    ids: list[StreamId]
    feed: Feed
    before: Resident  # what the process held with θ warm and without any stream

    def grown(self) -> Resident:
        """Returns what the process holds beyond that."""
        return resident() - self.before

    def held(self, held: Resident) -> dict[str, dict[str, int]]:
        """Returns figures of what is held, and of that divided by the streams."""
        every = asdict(held)
        each = {name: round(value / len(self.ids)) for name, value in every.items()}
        return {"resident_bytes": every, "resident_bytes_per_stream": each}

    def turn(self, append: Stopwatch, adapt: Stopwatch) -> None:
        """Takes in pairs of streams chosen by chance, and adapts some of them."""
        plan = self.plan
        ids = [self.ids[n] for n in self.feed.chosen(len(self.ids), plan.turn_pairs)]
        arrivals = [(stream, [self.feed.pair()]) for stream in ids]
        append.run(partial(self.streams.slide, arrivals), len(ids))
        cuts = [self.streams.cut(stream) for stream in ids[:: plan.adapt_every]]
        adapt.run(partial(self.streams.adapt, cuts), len(cuts))


def memory_figures(plan: WindowsPlan, spill: Path | None) -> dict[str, Any]:
    """Returns all figures of one process: nothing else was in its memory before."""
    engine = plan.warm_engine(spill)
    per_stream = engine.windows(1).bytes_per_stream
    count, limits = _as_many_as_fit(plan, per_stream, spill)
    feed, before, filling = Feed(plan), resident(), Stopwatch()
    windows = engine.windows(count)
    streams = Streams(plan.shape(), windows, count)
    filled = Filled(plan, windows, streams, names(plan, count), feed, before)
    for arrivals in feed.full_windows(filled.ids, plan):
        streams.add({stream: () for stream, _ in arrivals})
        filling.run(partial(streams.slide, arrivals), sum(len(new) for _, new in arrivals))
    held = filled.grown()
    if spill is not None:
        write_to_disk(spill)  # what filling left to be written is not what a pair costs later on
    report = {
        "streams": count,
        "limited_by": limits,
        "windows": type(windows).__name__,
        "bytes_per_stream_reserved": per_stream,
        "filling": filling.figures("pair"),
        **filled.held(held),
        "going_on": _go_on(filled),
        "append": {str(batch): _append(filled, batch) for batch in plan.batches},
    }
    return report if spill is None else report | {"written_out": _written_out(filled, spill)}


def _as_many_as_fit(
    plan: WindowsPlan, per_stream: int, spill: Path | None
) -> tuple[int, str | None]:
    memory = int(available_bytes())
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


def fitting(wanted: int, bytes_per_stream: int, room: int) -> int:
    """Returns as many of the wanted streams as take at most half of the room; one at least."""
    return max(1, min(wanted, room // 2 // max(1, bytes_per_stream)))


def _go_on(filled: Filled) -> dict[str, Any]:
    """Pairs for streams chosen by chance, some of which are adapted, and memory meanwhile."""
    plan, append, adapt = filled.plan, Stopwatch(), Stopwatch()
    samples, thousands, began = [filled.grown()], [0.0], time.monotonic()
    while time.monotonic() < began + plan.going_on_s or len(samples) < 2:
        filled.turn(append, adapt)
        if append.count >= 1_000 * thousands[-1] + plan.sample_pairs:
            samples.append(filled.grown())
            thousands.append(append.count / 1_000)
    return {
        "seconds": round(time.monotonic() - began, 1),
        "append": append.figures("pair"),
        "adapt": adapt.figures("stream"),
        "growth_share": rounded((samples[-1].anon - samples[0].anon) / max(1, samples[0].anon)),
        "growth_bytes_per_1000_appends": {
            name: rounded(slope(thousands, [getattr(sample, name) for sample in samples]))
            for name in ("all", "anon", "file")
        },
    }


def _append(filled: Filled, batch: int) -> dict[str, float]:
    """Appends of so many pairs at once, each to a window chosen by chance."""
    watch, began, feed = Stopwatch(), time.monotonic(), filled.feed
    times = -(-batch // len(feed.x_D))
    x_D, y_E = (feed.x_D * times)[:batch], (feed.y_E * times)[:batch]
    while time.monotonic() < began + filled.plan.batch_s:
        slots = feed.rng.integers(len(filled.ids), size=batch).tolist()
        watch.run(partial(filled.windows.append, slots, x_D, y_E), batch)
    return watch.figures("pair")


def _written_out(filled: Filled, spill: Path) -> dict[str, Any]:
    """What stays in memory once the kernel has taken the features back, and what a pair costs whose
    window's features must be read from the disk."""
    write_to_disk(spill)  # only clean pages can be taken at once
    try:
        give_back(spill)
    except OSError as e:
        return {"refused": f"the kernel does not take pages back when asked: {e}"}
    _, anon, file, shmem = astuple(filled.grown())
    file = max(0, file)  # it takes libraries' pages too: those were no stream's
    left = Resident(anon + file + shmem, anon, file, shmem)
    read, watch, began = _bytes_read(), Stopwatch(), time.monotonic()
    while time.monotonic() < began + filled.plan.cold_s:
        filled.turn(watch, Stopwatch())
    return {
        **filled.held(left),
        "append_after": watch.figures("pair"),
        "bytes_read_per_pair_after": round((_bytes_read() - read) / watch.count),
    }


def _bytes_read() -> int:
    """Returns bytes read from the disk for this process."""
    return proc_numbers(Path("/proc/self/io").read_text())["read_bytes"]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns that of the straight line that fits best (least squares); 0 for a single place."""
    return statistics.linear_regression(x, y).slope if len(set(x)) > 1 else 0.0
