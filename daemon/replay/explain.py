"""Says in words why a stream is served by the mapping that it has. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from daemon.turn.window import Pair
from daemon.utc import time_told
from daemon.wire.adapted_mapping import Facts
from model.values.gate import CLEARLY, Outcome

CANDIDATES = {
    "adapted": "θ′",
    "theta": "θ",
    "ridge": "ridge regression",
    "procrustes": "Procrustes",
}
VERDICTS = {
    Outcome.ADAPTED: "its own mapping, θ′, adapted from θ",
    Outcome.RIDGE: "a linear map",
    Outcome.WORSE: "θ itself: θ′ was no better",
    Outcome.NOT_FINITE: "θ itself: θ′ overflowed",
}


def explained(facts: Facts, window: Sequence[Pair] | None = None) -> Iterator[str]:
    """Yields sentences on one mapping; `window` is the stream's as Redis has it, None where
    that is not known."""
    yield (
        f"{facts.stream} is served by {VERDICTS[facts.outcome]} (outcome {facts.outcome.value}): "
        f"epoch {facts.epoch}, version {facts.version}, of partition {facts.partition} of "
        f"{facts.topic}."
    )
    since = f" from offset {facts.window_since}" if facts.window_since >= 0 else ""
    learned = "Its window has" if facts.outcome.is_fallback else "It learned from"
    pairs_from = f"{facts.support_pairs} pairs,{since} to {facts.version}"
    yield f"{learned} {pairs_from}, beginning at θ {facts.meta_init}."
    yield from _judged(facts)
    happened = time_told(facts.event_time_ms)
    delay_s = (facts.published_at_ms - facts.event_time_ms) / 1000
    yield (
        f"Its newest pair happened at {happened} UTC; it was published {delay_s:.1f} s later, in "
        f"turn {facts.turn}, as {facts.encoding} {facts.dtype}."
    )
    if window is not None:
        yield _window(facts, window)


def _judged(facts: Facts) -> Iterator[str]:
    if not facts.query_pairs:
        yield "No pair could judge the candidates: each source occurs among the older pairs."
        return
    losses = {
        "θ": facts.query_loss_before,
        "θ′": facts.query_loss_after,
        "ridge regression": facts.query_loss_ridge,
    }
    told = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items() if not math.isnan(loss))
    yield (
        f"Before that, the candidates learned from the older pairs alone and were judged on the "
        f"{facts.query_pairs} newest. Their mean loss there ({facts.loss}): {told}."
    )
    winner = CANDIDATES.get(facts.candidate, facts.candidate or "the winner")
    ahead = (facts.ahead_squared, facts.ahead_cosine)
    if any(math.isnan(number) for number in ahead):
        yield f"{winner} won; there was no other candidate to compare it with."
        return
    clear = "clearly" if min(ahead) > CLEARLY else "not clearly"
    yield (
        f"{winner} won: it is {_errors(ahead[0])} the nearest other candidate in squared error and "
        f"{_errors(ahead[1])} it in cosine distance, {clear} ({CLEARLY:g} standard errors in both "
        "are clear). Where nobody is clearly ahead, θ′ goes first, or the linear map beside a θ "
        "that was never meta-trained."
    )


def _errors(ahead: float) -> str:
    place = "ahead of" if ahead >= 0 else "behind"
    return f"{abs(ahead):.1f} standard errors {place}"


def _window(facts: Facts, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "Redis has no window of this stream: it expired, or was made for another encoder."
    newest = pairs[-1].id.offset
    held = (
        f"The window in Redis has {len(pairs)} pairs, from offset {pairs[0].id.offset} to {newest}"
    )
    newer = sum(pair.id.offset > facts.version for pair in pairs)
    if newer:
        return f"{held}: {newer} of them came after this mapping, and wait for their turn."
    return f"{held}: those that it was made of."
