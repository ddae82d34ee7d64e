"""Numbers out of numbers and text. Pure."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the repetitions."""
    return {
        "median": rounded(statistics.median(values)),
        "min": rounded(min(values)),
        "max": rounded(max(values)),
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Spread of ours over theirs, each taken with its neighbour in time, for noise comes in
    stretches."""
    return spread([a / b if b else math.inf for a, b in zip(ours, theirs, strict=True)])


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def busy_ticks(stat: str) -> int:
    """Time in which the machine's CPUs were not idle, from the text of /proc/stat."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split()[1:9])
    return user + nice + system + irq + softirq + steal


def counters(exposition: str) -> dict[str, float]:
    """A scrape's `_total` and `_sum` samples; a labelled one is also there as `name{value}`."""
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name.endswith(("_total", "_sum")):
                found[sample.name] += sample.value
                for value in sample.labels.values():
                    found[f"{sample.name}{{{value}}}"] += sample.value
    return found


def difference(end: Mapping[str, float], start: Mapping[str, float]) -> dict[str, float]:
    """What was added to each counter."""
    return {name: value - start.get(name, 0.0) for name, value in end.items()}
