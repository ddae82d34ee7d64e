"""Windows in hidden space: every pair is projected once, when it arrives.

Z = slots, W = window size, R = rows (new pairs, a chunk of them to project), D = source dim,
E = target dim, X = source or target dim, H = hidden units, G = H + 1, B = streams in batch (a
chunk), S = support pairs (capacity), Q = query pairs (capacity), N = pairs of a stream (S + Q),
I = inputs of a layer, O = outputs of a layer

What lies in memory of a slot (`model.inner.hidden.descent` says what for):

    x, y                       (W, D), (W, E)    the features, in host memory or spilled
    p = W1·x + b1, r = W2ᵀ·y   (W, H) each       on the device
    t = y·b2, before           (W) each          before: the pair's loss by θ
    μ·x                        (W)               where θ tells the mean μ of its usual sources
    g = x·xᵀ, γ = y·yᵀ         (W, W) each

A new pair costs its own projections (one matrix product for all that arrive together) and one row
and column of each Gram; nothing else moves. Adapting gathers a slot's rows in order of age and
touches no feature; those are read again to publish, and for streams that hidden space is too coarse
for, which are adapted and judged in full.

What holds for bits: products with θ's matrices are made in chunks of ROWS rows always, a Gram's
number is a sum over products in one fixed order wherever its pairs lie (`dots`), and pairs are
gathered by age: so the ring's turning, a restart, or what else arrived changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inner.hidden.losses import losses_of_theta
from model.inner.hidden.memory import JudgingSpace, Workspace
from model.inner.hidden.projected import Projected, less_bias
from model.inner.hidden.result import FactorRoom, factors
from model.serving import rival
from model.serving.device_faults import in_parts, lost_device_told
from model.serving.hidden_fit import HiddenFit, HostFactors, SideUnit
from model.serving.hidden_judging import InnerLoop, JudgingPairs, descend_in_units, judge_chunk
from model.serving.judging import Judged
from model.serving.lazy import LazyTensors
from model.serving.projections import New, Projections, dots, gram_rows
from model.serving.windows import RawWindows, Slots, stream_bytes
from model.values.arrays import FloatArray, aligned
from model.values.episode import Adaptation, Candidate, Cut, Episode
from model.values.low_rank import LowRank

ROWS = 16
"""Pairs are projected so many at a time, whatever the number that arrived. As many as let each
chunk begin at a cache line."""


class HiddenWindows:
    """Windows of an engine whose inner loop runs in hidden space."""

    def __init__(
        self,
        raw: RawWindows,
        inner: InnerLoop,
        capacities: tuple[int, int],
        chunk: int,
        in_full: Callable[[Sequence[Episode], Sequence[bool]], Sequence[Adaptation]],
    ) -> None:
        """Takes over `raw`, which must be empty. `capacities` are those of support and query, their
        sum the window's size; `chunk` streams are adapted at a time. `in_full` adapts, with weights
        in full, the streams that hidden space is too coarse for, and says which are wanted."""
        self._raw, self._inner, self._terms = raw, inner, inner.terms
        self._support, self._query = aligned(capacities[0]), capacities[1]
        self._whole = aligned(sum(capacities))
        self._chunk, self._in_full = chunk, in_full
        self._device = inner.terms.w1.device
        self._b2_E = inner.terms.b2.cpu().numpy()
        self._w1_DH = inner.terms.w1.T.contiguous()
        self._usual_D = None if inner.usual is None else inner.usual.mean_D.cpu().numpy()
        self._projections = Projections(
            raw.capacity,
            raw.size,
            len(inner.terms.w1),
            self._device,
            usual=inner.usual is not None,
        )
        self._workspace, self._judging, self._room = Workspace(), JudgingSpace(), FactorRoom()
        self._generation = 0
        self.batch_splits = 0
        """How often the last `adapt` halved its cuts because the device's memory was short."""

    @property
    def bytes_per_stream(self) -> int:
        """Bytes that one slot takes once it is full."""
        return stream_bytes(self._raw) + self._projections.bytes_per_stream

    def clear(self, slot: int) -> None:
        """Lets go of a slot's pairs."""
        self._generation += 1
        self._raw.clear(slot)

    def shorten(self, slot: int, pairs: int) -> None:
        """Lets go of all but the newest pairs of a slot. What was adapted to those can still be
        read."""
        self._raw.shorten(slot, pairs)

    @torch.inference_mode()
    def append(
        self, slots: Sequence[int], x_D: Sequence[FloatArray], y_E: Sequence[FloatArray]
    ) -> None:
        """Takes new pairs in, a stream's in order. Raises DeviceLost."""
        self._generation += 1
        x_RD, y_RE = _whole(x_D), _whole(y_E)
        rows = np.array(self._raw.append(slots, x_RD[: len(slots)], y_RE[: len(slots)]), np.int64)
        if (rows < 0).any():  # displaced by later ones of the same call
            (kept,) = np.nonzero(rows >= 0)
            x_RD, y_RE, rows = _whole([*x_RD[kept]]), _whole([*y_RE[kept]]), rows[kept]
        g_RW = gram_rows(self._raw.x_ZWD, rows, x_RD)
        gamma_RW = gram_rows(self._raw.y_ZWE, rows, y_RE)
        yy_R = np.zeros(len(y_RE), np.float32)
        yy_R[: len(rows)] = gamma_RW[np.arange(len(rows)), rows % self._raw.size]
        with lost_device_told():
            rows_R, new = self._put(rows), self._projected(x_RD, y_RE, yy_R)
            self._projections.put(rows_R, New(*(part[: len(rows)] for part in new)))
            self._projections.put_grams(rows_R, self._put(g_RW), self._put(gamma_RW))

    def _projected(self, x_RD: FloatArray, y_RE: FloatArray, yy_R: FloatArray) -> New:
        """What is made once of new pairs; whole chunks of them."""
        terms, inner = self._terms, self._inner
        p_RH = _times(self._put(x_RD), self._w1_DH).add_(terms.b1)
        r_RH, t_R = _times(self._put(y_RE), terms.w2), self._put(dots(y_RE, self._b2_E))
        nothing = p_RH.new_zeros(1, 0, 1)
        alone = Projected(
            p_RH.unsqueeze(0),
            r_RH.unsqueeze(0),
            t_R.unsqueeze(0),
            nothing,
            nothing,
            self._put(yy_R).unsqueeze(0),
            torch.ones_like(t_R, dtype=torch.bool).unsqueeze(0),
        )
        less_b2 = less_bias(terms, alone)
        before_1R = losses_of_theta(terms, less_b2, inner.loss, inner.activation, _times)
        usual_D = self._usual_D
        onto_usual_R = torch.zeros_like(t_R) if usual_D is None else self._put(dots(x_RD, usual_D))
        return New(p_RH, r_RH, t_R, before_1R[0], onto_usual_R)

    def pairs(self, cut: Cut) -> tuple[FloatArray, FloatArray]:
        """Returns a copy of a slot's pairs, x and y. Raises ValueError as `RawWindows.pairs`."""
        return self._raw.pairs(cut)

    def adapt(self, cuts: Sequence[Cut]) -> list[Adaptation]:
        """Returns the adaptation of every cut, in order. Raises DeviceLost.

        Their tensors and factors may be read until the next call of any of these methods; later
        reads raise RuntimeError.
        """
        self._generation += 1
        self._room.begin(sum(cut.wanted for cut in cuts))
        wanted_first = sorted(range(len(cuts)), key=lambda place: not cuts[place].wanted)
        ordered = [cuts[place] for place in wanted_first]
        with lost_device_told():
            found, self.batch_splits = in_parts(self._adapt_chunks, ordered)
        by_place = dict(zip(wanted_first, found, strict=True))
        return [by_place[place] for place in range(len(cuts))]

    def _adapt_chunks(self, cuts: Sequence[Cut]) -> list[Adaptation]:
        return [
            adaptation
            for start in range(0, len(cuts), self._chunk)
            for adaptation in self._adapt_chunk(cuts[start : start + self._chunk])
        ]

    @torch.inference_mode()
    def _adapt_chunk(self, cuts: Sequence[Cut]) -> list[Adaptation]:
        judges, singles = zip(*(self._raw.judges(cut) for cut in cuts), strict=True)
        pairs = JudgingPairs(
            self._put(_padded(judges, self._query)), self._put(_padded(singles, self._support))
        )
        raw, before_BN, usual_BN = self._projections.gather(self._rows(cuts), self._support)
        found = descend_in_units(self._inner, raw, usual_BN, self._workspace)
        streams, coarse = judge_chunk(self._inner, found, before_BN, pairs, self._judging)
        refits = self._refits(
            [
                cut
                for cut, own, is_coarse in zip(cuts, streams, coarse, strict=True)
                if cut.wanted and own.winner is Candidate.ADAPTED and not is_coarse
            ],
            self._room,
        )
        return [
            self._in_full([self._raw.episode(cut)], [cut.wanted])[0]
            if is_coarse
            else self._adaptation(cut, own, refits.get(cut), int(own_judges.sum()))
            for cut, own, is_coarse, own_judges in zip(cuts, streams, coarse, judges, strict=True)
        ]

    def _refits(
        self, chosen: Sequence[Cut], room: FactorRoom | None = None
    ) -> dict[Cut, HiddenFit]:
        """θ′ of the chosen cuts, adapted to all their pairs, where that is finite."""
        if not chosen:
            return {}
        whole = [cut._replace(support=cut.support + cut.query, query=0) for cut in chosen]
        fits = self._fits(whole, self._whole, room)
        return {cut: fit for cut, fit in zip(chosen, fits, strict=True) if fit is not None}

    def _fits(
        self, cuts: Sequence[Cut], capacity: int, room: FactorRoom | None = None
    ) -> list[HiddenFit | None]:
        """θ′ of every cut, adapted to its support; None where that is not finite."""
        raw, _, usual_BN = self._projections.gather(self._rows(cuts, (capacity, 0)), capacity)
        found = descend_in_units(self._inner, raw, usual_BN, self._workspace)
        descent = found.descent
        into = room.take(descent) if room else None
        made = factors(self._terms, found.projected, descent, into)
        on_host = [tensor.cpu().numpy() for tensor in made]
        each = (HostFactors(*own) for own in zip(*on_host, strict=True))
        finite = descent.healthy_B.tolist()
        units = torch.stack([unit_B for side in found.units for unit_B in side], 1).tolist()
        return [
            HiddenFit(cut, own, SideUnit(r, source, self._usual_D), SideUnit(s, target))
            if is_finite
            else None
            for cut, own, (r, source, s, target), is_finite in zip(
                cuts, each, units, finite, strict=True
            )
        ]

    def _rows(self, cuts: Sequence[Cut], capacities: tuple[int, int] | None = None) -> Slots:
        """The rows of each cut's pairs, oldest first, support and query each padded with −1."""
        room, query_room = capacities or (self._support, self._query)
        slots, support, query = np.array([cut[:3] for cut in cuts], np.int64).T[:, :, None]
        size = self._raw.size
        first = np.array([self._raw.first(cut) for cut in cuts], np.int64)[:, None]
        column = np.arange(room + query_room)
        in_query = column >= room
        age = np.where(in_query, column - room + support, column)
        real = np.where(in_query, column - room < query, column < support)
        return np.where(real, slots * size + (first + age) % size, -1)

    def _adaptation(
        self, cut: Cut, found: Judged, refit: HiddenFit | None, judged_pairs: int
    ) -> Adaptation:
        generation = self._generation

        def fit() -> HiddenFit:
            if generation != self._generation:
                raise RuntimeError("read an adaptation before the windows go on")
            return refit or self._fit_again(cut)

        def linear(kind: Candidate) -> Mapping[str, FloatArray]:
            if generation != self._generation:
                raise RuntimeError("read an adaptation before the windows go on")
            return rival.of_pairs(*self._raw.pairs(cut), cut.support, kind)

        winner, ridge, won = found.winner, None, None
        if Candidate.RIDGE in self._inner.order:
            ridge = LazyTensors(lambda: linear(Candidate.RIDGE))
        if winner.is_linear:
            won = ridge if winner is Candidate.RIDGE else LazyTensors(lambda: linear(winner))
        return Adaptation(
            LazyTensors(lambda: self._tensors(fit())),
            *found[:4],
            finite=found.finite,
            query_loss_ridge=found.query_ridge,
            ridge=won,
            rival=ridge,
            factored=lambda: self._low_rank(fit()),
            winner=winner,
            judged_pairs=judged_pairs,
            evidence=found.evidence,
            ahead_squared=found.ahead_squared,
            ahead_cosine=found.ahead_cosine,
        )

    @torch.inference_mode()
    def _fit_again(self, cut: Cut) -> HiddenFit:
        """θ′ of a stream that was not wanted at first, or whose pairs together explode."""
        found = self._refits([cut])
        if found:
            return found[cut]
        (fit,) = self._fits([cut], self._support)
        if fit is None:
            raise ValueError(f"the adapted mapping of {cut} is not finite")
        return fit

    def _tensors(self, fit: HiddenFit) -> Mapping[str, FloatArray]:
        return fit.tensors(*self._adapted_to(fit), self._theta())

    def _low_rank(self, fit: HiddenFit) -> LowRank | None:
        return fit.low_rank(*self._adapted_to(fit), self._theta())

    def _adapted_to(self, fit: HiddenFit) -> tuple[FloatArray, FloatArray]:
        """x and y of the pairs that it was adapted to."""
        return self._raw.support(fit.cut)

    def _theta(self) -> dict[str, FloatArray]:
        h = self._inner.hidden_dim
        w1, b1, w2 = (t.cpu().numpy() for t in (self._terms.w1, self._terms.b1, self._terms.w2))
        return {"w1": w1[:h], "b1": b1[:h], "w2": w2[:, :h], "b2": self._b2_E}

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _whole(rows_X: Sequence[FloatArray]) -> FloatArray:
    """The rows, and rows of 0 that make the last chunk whole."""
    whole = np.zeros((aligned(len(rows_X), ROWS), len(rows_X[0])), np.float32)
    np.stack(rows_X, out=whole[: len(rows_X)])
    return whole


def _times(left_RI: Tensor, right_IO: Tensor) -> Tensor:
    """The product of whole chunks of rows and a matrix, chunk by chunk."""
    made_RO = left_RI.new_empty(len(left_RI), right_IO.shape[1])
    for rows, made in zip(torch.split(left_RI, ROWS), torch.split(made_RO, ROWS), strict=True):
        torch.mm(rows, right_IO, out=made)
    return made_RO


def _padded(pairs: Sequence[NDArray[np.bool_]], capacity: int) -> NDArray[np.bool_]:
    padded_BN = np.zeros((len(pairs), capacity), np.bool_)
    for row_N, own_N in zip(padded_BN, pairs, strict=True):
        row_N[: len(own_N)] = own_N
    return padded_BN
