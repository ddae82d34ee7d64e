"""The judge of a canary: evidence in, a verdict out. Pure.

Each stream gives one number d in [-1, 1], above 0 where the candidate is better. Four bets are held
on these numbers, each against one hypothesis. A bet's capital begins at 1 and grows by the factor
1 + λ·gain with each stream; while the hypothesis is true no strategy is expected to win, so by
Ville's inequality the capital ever reaches 1/α with a chance of at most α, however often one looks
and whenever one stops (an e-process; Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2024). Five λ are played at once, each with a fifth of the capital.

    bet       its hypothesis                                        gain of a stream
    better    on the mean, the candidate is not better by DELTA     d - DELTA
    worse     on the mean, the candidate is not worse by DELTA      -d - DELTA
    safe      at least 5 % of streams are harmed (d < -HARM)        5 % - harmed
    harmful   at most 5 % of streams are harmed                     harmed - 5 %

The candidate has *won* once the capitals of `better` and `safe` are both at 1/α or above. The mean
alone is not enough: a θ that is far better for most tenants and ruins a fifth of them would win. It
has *lost* once `worse` or `harmful` has reached AGAINST, or when it gave adaptations that are not
finite in several of the first streams. A verdict is final: what comes later changes nothing.

Streams are the units, not events: the events of a stream agree with one another, and counted one by
one they would promote a useless candidate far more often than α. So a stream counts once, by the
first record that names it. All arithmetic is on Python's floats in the order of the log, therefore
every reader of the log comes to the same verdict, to the bit, however it was cut into batches.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from daemon.canary.assignment import shadows
from daemon.wire.canary import Canary
from daemon.wire.evidence import BadEvidence, StreamEvidence, decode_evidence
from daemon.wire.record import Record

BETS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""λ: small ones are right for small differences, large ones for large. Below 1/(1 + DELTA), or a
single stream could take all of the capital."""
DELTA = 0.01
"""Less is not worth a renewal of every stream."""
HARM = 0.05
"""A stream that is worse by more than this is harmed."""
MOST_HARMED = 0.05
"""Of the streams."""
ALPHA = 0.01
"""The chance at which a candidate that is no better may win, of all candidates that are tried
against one active θ together."""
AGAINST = 20.0
"""What rejects. To reject a good candidate costs little: another one comes."""
EARLY_STREAMS = 20
MOST_FAILED = 3
"""In so many of the first EARLY_STREAMS, an adaptation that is not finite rejects."""
MOST_CAPITAL = 1e15
"""Capital beyond this is given away. That cannot make a bet win that would not have, and keeps
every number finite."""

Verdict = Literal["open", "won", "lost"]


def alpha_of(attempt: int) -> float:
    """Returns the α of the attempt-th candidate (from 1): those of all attempts sum to ALPHA."""
    return ALPHA * 6.0 / (math.pi * attempt) ** 2


class Bet:
    """The capital of one bet."""

    def __init__(self) -> None:
        self._capitals = [1.0 / len(BETS)] * len(BETS)

    def observe(self, gain: float) -> None:
        """Plays one stream."""
        self._capitals = [
            min(capital * (1.0 + bet * gain), MOST_CAPITAL)
            for capital, bet in zip(self._capitals, BETS, strict=True)
        ]

    @property
    def capital(self) -> float:
        """What 1 has become: how strongly the streams speak against the hypothesis."""
        return sum(self._capitals)


@dataclass(frozen=True, slots=True)
class CanaryStanding:
    """What the evidence comes to so far. Of a watch, all is said of the active θ beside the former
    one, so that `lost` always means: do not serve it."""

    verdict: Verdict
    reason: str
    """Why it has lost; empty otherwise."""
    streams: int
    harmed: int
    difference: float
    """The mean of the streams' d; NaN without streams, as the next ones."""
    error: float
    """Its standard error."""
    cold: float
    full: float
    better: float
    worse: float
    safe: float
    harmful: float
    """The capitals of the four bets."""
    needed: float
    """What `better` and `safe` must reach."""
    refused: int
    """Records under the candidate's hash that are damaged, or of streams that do not judge it."""

    @property
    def counts(self) -> tuple[Verdict, int, int]:
        """What changes with whatever is heard: the verdict, the streams, the refused records."""
        return self.verdict, self.streams, self.refused

    def known(self) -> dict[str, Any]:
        """Returns all that is a word or a number, by name."""
        return {name: found for name, found in asdict(self).items() if not _is_nan(found)}


def _is_nan(found: object) -> bool:
    return isinstance(found, float) and math.isnan(found)


class CanaryJudge:
    """Folds the records of the topic of evidence, in their order, into a standing."""

    def __init__(self, canary: Canary) -> None:
        self._canary = canary
        self._sign = -1.0 if canary.watch else 1.0
        self._needed = 1.0 / alpha_of(canary.attempt)
        self._better, self._worse, self._safe, self._harmful = Bet(), Bet(), Bet(), Bet()
        self._seen = set[str]()
        self._sums = [0.0, 0.0, 0.0, 0.0]
        """Of d, of its square, of cold, of full."""
        self._harmed = self._failed = self._refused = 0
        self._verdict: Verdict = "open"
        self._reason = ""

    def observe(self, record: Record) -> None:
        """Takes the next record of the topic, whatever it holds."""
        if self._verdict != "open" or record.timestamp > self._canary.until_ms:
            return
        try:
            heard = decode_evidence(record)
        except BadEvidence:
            ours = (record.key or b"").startswith(self._canary.content_hash.encode())
            self._refused += ours
            return
        named = (heard.content_hash, heard.evidence.canary)
        if named != (self._canary.content_hash, self._canary.epoch) or heard.stream in self._seen:
            return
        if not shadows(self._canary, heard.stream):
            self._refused += 1
            return
        self._seen.add(heard.stream)
        self._count(heard.evidence)

    def _count(self, evidence: StreamEvidence) -> None:
        d, cold, full = (self._sign * each for each in (evidence.d, evidence.cold, evidence.full))
        self._sums = [a + b for a, b in zip(self._sums, (d, d * d, cold, full), strict=True)]
        harmed = d < -HARM
        self._harmed += harmed
        if len(self._seen) <= EARLY_STREAMS and not self._canary.watch:
            self._failed += evidence.failed > 0
        self._better.observe(d - DELTA)
        self._worse.observe(-d - DELTA)
        self._safe.observe(MOST_HARMED - harmed)
        self._harmful.observe(harmed - MOST_HARMED)
        self._decide()

    def _decide(self) -> None:
        if self._failed >= MOST_FAILED:
            self._verdict, self._reason = "lost", "adaptations were not finite"
        elif self._worse.capital >= AGAINST:
            self._verdict, self._reason = "lost", "worse on the mean"
        elif self._harmful.capital >= AGAINST:
            self._verdict, self._reason = "lost", "harms more than 5 % of the streams"
        elif min(self._better.capital, self._safe.capital) >= self._needed:
            self._verdict = "won"

    def standing(self) -> CanaryStanding:
        """Returns what the records so far come to."""
        n = len(self._seen)
        mean, square, cold, full = (each / n if n else math.nan for each in self._sums)
        variance = max(0.0, square - mean * mean) / (n - 1) if n > 1 else math.nan
        return CanaryStanding(
            verdict=self._verdict,
            reason=self._reason,
            streams=n,
            harmed=self._harmed,
            difference=mean,
            error=math.sqrt(variance),
            cold=cold,
            full=full,
            better=self._better.capital,
            worse=self._worse.capital,
            safe=self._safe.capital,
            harmful=self._harmful.capital,
            needed=self._needed,
            refused=self._refused,
        )
