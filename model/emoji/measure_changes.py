"""Measures how soon a changed stream is followed, and how often a steady one is cut by mistake.

    python -m model.emoji.measure_changes [--events N] [--tenants N] [--theta NAME]...

Prints, for each of the shipped θs: R@1 before a jump to another tenant's map, the mean over the
next 72 pairs, and after how many of them it is back at 90 %; and of N pairs of streams that do not
change, after each of which a full window is adapted, how many windows the watch cuts.

N = pairs of a stream (after the jump)
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console

from model.emoji.evaluate import shipped_thetas
from model.emoji.judge_untuned import (
    UNTUNED_THETAS,
    UntunedOptions,
    held_out_streams,
    moving_episodes,
)
from model.emoji.moving_streams import MOVING, SUPPORT_PAIRS, static_windows
from model.emoji.streams import FeatureCache
from model.evaluate import comparison
from model.evaluate.methods import gated
from model.evaluate.scoring import recalls_at_1
from model.evaluate.watched import cuts_of, watched
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit

BACK_AT = 0.9


def after_a_jump(name: str, theta: MetaInit, cache: FeatureCache, options: UntunedOptions) -> str:
    """Return what R@1 is before a jump, over the next 72 pairs, and when it is back, in a line."""
    engine = comparison.engine_for(theta, replace(options.plan, sizes=(SUPPORT_PAIRS,)))
    streams = held_out_streams(name, theta, cache, options.tenants)
    found = moving_episodes(streams, MOVING[0], options)
    before = float(np.mean(recalls_at_1(gated(engine), [each.before[-1] for each in found])))
    follow = watched(engine, [each.before for each in found], options.every)
    judged = recalls_at_1(follow, [episode for each in found for episode in each.after])
    mean_N = np.reshape(judged, (len(found), -1)).mean(0)
    back = np.flatnonzero(mean_N >= BACK_AT * before)
    pairs = f"{options.every * (int(back[0]) + 1)} pairs" if len(back) else "more than 72 pairs"
    mean = f"{mean_N.mean():.3f} over the next 72 pairs"
    return f"{name}: R@1 {before:.3f} before a jump, {mean}, back at 90 % after {pairs}"


def without_a_change(
    name: str, theta: MetaInit, cache: FeatureCache, events: int, options: UntunedOptions
) -> str:
    """Return how many windows are cut of steady streams, in a line. Tenants are taken in groups, as
    many as make so many events."""
    engine = comparison.engine_for(theta, replace(options.plan, sizes=(SUPPORT_PAIRS,)))
    pairs = cuts = 0
    for group, streams in enumerate(_groups(name, theta, cache, events, options.tenants)):
        found = cuts_of(engine, static_windows(streams, np.random.default_rng([1, group])))
        pairs, cuts = pairs + found.pairs, cuts + found.cuts
    return f"{name}: {cuts} windows cut in {pairs:,} pairs of streams that do not change"


def _groups(
    name: str, theta: MetaInit, cache: FeatureCache, events: int, size: int
) -> Iterator[list[RecordedStream]]:
    first = held_out_streams(name, theta, cache, 1)
    windows = len(first[0]) - SUPPORT_PAIRS
    tenants = math.ceil(events / windows)
    streams = held_out_streams(name, theta, cache, tenants)
    for start in range(0, tenants, size):
        yield streams[start : start + size]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Measure how changes of streams are followed.")
    parser.add_argument("--events", type=int, default=10_000, help="of streams that do not change")
    parser.add_argument("--tenants", type=int, default=10, help="whose map jumps")
    parser.add_argument("--theta", action="append", help="a shipped θ; may be repeated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    thetas, cache = shipped_thetas()[0], FeatureCache()
    options, console = UntunedOptions(tenants=arguments.tenants), Console(soft_wrap=True)
    for name in arguments.theta or UNTUNED_THETAS:
        began = time.process_time()
        console.print(after_a_jump(name, thetas[name], cache, options))
        console.print(without_a_change(name, thetas[name], cache, arguments.events, options))
        console.print(f"{name}: {time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
