"""Windows in hidden space: every pair is projected once, when it arrives.

Z = slots, W = window size, R = rows (new pairs, a chunk of them to project), D = source dim,
E = target dim, X = source or target dim, H = hidden units, G = H + 1, B = streams in batch (a
chunk), S = support pairs (capacity), Q = query pairs (capacity), N = pairs of a stream (S + Q)

What lies in memory of a slot (`model.inner.hidden.descent` says what for):

    x, ŷ = y − b2              (W, D), (W, E)    the features, in host memory or spilled
    p = W1·x + b1, r = W2ᵀ·ŷ   (W, H) each       on the device
    t = ŷ·b2, before           (W) each          before: the pair's loss by θ
    g = x·xᵀ, γ = ŷ·ŷᵀ         (W, W) each

A new pair costs its own projections (one matrix product for all that arrive together) and one row
and column of each Gram; nothing else moves. Adapting gathers a slot's rows in order of age and
touches no feature; those are read again only to publish.

What holds for bits: p and r are made in chunks of ROWS rows always, a Gram's number is a sum over
products in one fixed order wherever its pairs lie (`numpy.einsum`, row by row), and pairs are
gathered by age: so the ring's turning, a restart, or what else arrived changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inner.hidden.coefficients import head_of
from model.inner.hidden.descent import Descent
from model.inner.hidden.losses import losses_of_theta, ridge_losses, unreliable
from model.inner.hidden.memory import JudgingSpace, Workspace
from model.inner.hidden.projected import Projected, Terms
from model.inner.hidden.result import FactorRoom, factors, pair_losses
from model.losses import Loss
from model.serving import rival
from model.serving.device_faults import in_parts, lost_device_told
from model.serving.judging import MeanLosses, PairLosses, finite_losses, judged
from model.serving.projections import New, Projections, gram_rows
from model.serving.windows import RawWindows, Slots, stream_bytes
from model.theta.meta_init import Activation
from model.values.arrays import FloatArray, aligned
from model.values.episode import Adaptation, Cut, Episode
from model.values.low_rank import LowRank

ROWS = 32
"""Pairs are projected so many at a time, whatever the number that arrived."""


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """θ and its learner as hidden space has them, and what adaptations are judged by."""

    terms: Terms
    descend: Callable[[Projected, Workspace], Descent]
    activation: Activation
    loss: Loss
    """What pairs are judged by: mse or cosine."""
    ridge: bool
    """Whether ridge regression is fitted and judged beside θ′."""
    hidden_dim: int
    """H without idle units."""


class HiddenWindows:
    """Windows of an engine whose inner loop runs in hidden space."""

    def __init__(
        self,
        raw: RawWindows,
        inner: InnerLoop,
        capacities: tuple[int, int],
        chunk: int,
        in_full: Callable[[Sequence[Episode]], Sequence[Adaptation]],
    ) -> None:
        """Takes over `raw`, which must be empty. `capacities` are those of support and query, their
        sum the window's size; `chunk` streams are adapted at a time. `in_full` adapts, with weights
        in full, the streams that hidden space is too coarse for."""
        self._raw, self._inner, self._terms = raw, inner, inner.terms
        self._support, self._query = aligned(capacities[0]), capacities[1]
        self._chunk, self._in_full = chunk, in_full
        self._device = inner.terms.w1.device
        self._b2_E = inner.terms.b2.cpu().numpy()
        self._projections = Projections(raw.capacity, raw.size, len(inner.terms.w1), self._device)
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

    @torch.inference_mode()
    def append(
        self, slots: Sequence[int], x_D: Sequence[FloatArray], y_E: Sequence[FloatArray]
    ) -> None:
        """Takes new pairs in, a stream's in order. Raises DeviceLost."""
        self._generation += 1
        x_RD, y_RE = np.stack(x_D), np.stack(y_E) - self._b2_E
        rows = np.array(self._raw.append(slots, x_RD, y_RE), np.int64)
        if (rows < 0).any():
            x_RD, y_RE, rows = x_RD[rows >= 0], y_RE[rows >= 0], rows[rows >= 0]
        g_RW = gram_rows(self._raw.x_ZWD, rows, x_RD)
        gamma_RW = gram_rows(self._raw.y_ZWE, rows, y_RE)
        yy_R = gamma_RW[np.arange(len(rows)), rows % self._raw.size]
        with lost_device_told():
            rows_R = self._put(rows)
            self._projections.put(rows_R, self._projected(x_RD, y_RE, yy_R))
            self._projections.put_grams(rows_R, self._put(g_RW), self._put(gamma_RW))

    def _projected(self, x_RD: FloatArray, y_RE: FloatArray, yy_R: FloatArray) -> New:
        chunks = zip(*map(self._rows_of, (x_RD, y_RE, yy_R)), strict=True)
        made = zip(*(self._projected_rows(*chunk) for chunk in chunks), strict=True)
        return New(*(torch.cat(part)[: len(x_RD)] for part in made))

    def _projected_rows(self, x_RD: Tensor, y_RE: Tensor, yy_R: Tensor) -> New:
        terms, inner = self._terms, self._inner
        p_RH = torch.addmm(terms.b1, x_RD, terms.w1.T)
        r_RH, t_R = y_RE @ terms.w2, y_RE @ terms.b2
        nothing = p_RH.new_zeros(1, 0, len(p_RH))
        real_R = torch.ones_like(yy_R, dtype=torch.bool)
        alone = Projected(
            p_RH.unsqueeze(0),
            r_RH.unsqueeze(0),
            t_R.unsqueeze(0),
            nothing,
            nothing,
            yy_R.unsqueeze(0),
            real_R.unsqueeze(0),
        )
        before_1R = losses_of_theta(terms, alone, inner.loss, inner.activation)
        return New(p_RH, r_RH, t_R, before_1R[0])

    def _rows_of(self, array_RX: FloatArray) -> Sequence[Tensor]:
        """The array in chunks of ROWS rows, 0 beyond the end."""
        whole = np.zeros((aligned(len(array_RX), ROWS), *array_RX.shape[1:]), np.float32)
        whole[: len(array_RX)] = array_RX
        chunks: Sequence[Tensor] = torch.split(self._put(whole), ROWS)
        return chunks

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
        terms, inner = self._terms, self._inner
        projected, descent, before_BN = self._descended(cuts)
        after_BN = pair_losses(terms, projected, descent, inner.loss, self._judging)
        real_BS, real_BQ = self._cut_in_two(projected.real_BN)
        losses = judged(self._pair_losses(projected, before_BN, after_BN), real_BS, real_BQ)
        coarse_B = unreliable(terms, projected, inner.loss, before_BN, after_BN)
        made = self._factors(cuts, projected, descent)
        found = zip(cuts, losses, descent.healthy_B.tolist(), coarse_B.tolist(), made, strict=True)
        return [
            self._in_full([self._episode(cut)])[0]
            if coarse
            else self._adaptation(cut, means, healthy, factors)
            for cut, means, healthy, coarse, factors in found
        ]

    def _descended(self, cuts: Sequence[Cut]) -> tuple[Projected, Descent, Tensor]:
        """Projections and θ′, which last until the next call, and each pair's loss by θ."""
        projected, before_BN = self._projections.gather(self._rows(cuts), self._support)
        return projected, self._inner.descend(projected, self._workspace), before_BN

    def _factors(
        self, cuts: Sequence[Cut], projected: Projected, descent: Descent
    ) -> list[HostFactors | None]:
        """Factors of the wanted cuts, which come first; made while the steps are in the cache."""
        wanted = sum(cut.wanted for cut in cuts)
        nothing: list[HostFactors | None] = [None] * (len(cuts) - wanted)
        if not wanted:
            return nothing
        descent = _of_first(descent, wanted)
        made = factors(self._terms, projected, descent, self._room.take(descent))
        on_host = [tensor.cpu().numpy() for tensor in made]
        return [HostFactors(*own) for own in zip(*on_host, strict=True)] + nothing

    def _pair_losses(self, projected: Projected, before_BN: Tensor, after_BN: Tensor) -> PairLosses:
        inner = self._inner
        before_BS, before_BQ = self._cut_in_two(before_BN)
        after_BS, after_BQ = self._cut_in_two(after_BN)
        ridge_BQ = torch.full_like(after_BQ, float("nan"))
        if inner.ridge:
            ridge_BN = ridge_losses(self._terms, projected, rival.PENALTY, inner.loss)
            ridge_BQ = self._cut_in_two(ridge_BN)[1]
        return PairLosses(before_BS, after_BS, before_BQ, after_BQ, ridge_BQ)

    def _cut_in_two(self, pairs_BN: Tensor) -> tuple[Tensor, Tensor]:
        return pairs_BN[:, : self._support], pairs_BN[:, self._support :]

    def _rows(self, cuts: Sequence[Cut]) -> Slots:
        """The rows of each cut's pairs, oldest first, support and query each padded with −1."""
        slots, support, query = np.array([cut[:3] for cut in cuts], np.int64).T[:, :, None]
        size = self._raw.size
        first = np.array([self._raw.oldest(int(slot)) for slot in slots[:, 0]], np.int64)[:, None]
        column = np.arange(self._support + self._query)
        in_query = column >= self._support
        age = np.where(in_query, column - self._support + support, column)
        real = np.where(in_query, column - self._support < query, column < support)
        return np.where(real, slots * size + (first + age) % size, -1)

    def _adaptation(
        self, cut: Cut, losses: MeanLosses, healthy: bool, made: HostFactors | None
    ) -> Adaptation:
        finite = healthy and finite_losses(losses, support=cut.support > 0, query=cut.query > 0)
        generation = self._generation

        def low_rank() -> LowRank:
            if generation != self._generation:
                raise RuntimeError("read an adaptation before the windows go on")
            return self._low_rank(cut, made or self._made_again(cut))

        return Adaptation(
            _Lazy(lambda: self._multiplied_out(low_rank())),
            *losses[:4],
            finite,
            losses.query_ridge,
            _Lazy(lambda: rival.of_episode(self._episode(cut))) if losses.ridge_wins else None,
            low_rank,
        )

    @torch.inference_mode()
    def _made_again(self, cut: Cut) -> HostFactors:
        """Factors of a stream that was not wanted at first."""
        cut = cut._replace(wanted=True)
        projected, descent, _ = self._descended([cut])
        (made,) = self._factors([cut], projected, descent)
        assert made is not None
        return made

    def _low_rank(self, cut: Cut, made: HostFactors) -> LowRank:
        """θ′ as factors, without idle units and padding."""
        (x_SD, y_SE), (a_SH, beta_H, n_GG, v_SG) = self._raw.support(cut), made
        n, units = cut.support, self._inner.hidden_dim
        if units < len(beta_H):
            kept = [*range(units), len(beta_H)]  # with the bias
            n_GG, v_SG = n_GG[np.ix_(kept, kept)], v_SG[:, kept]
        return LowRank(
            x_SD=x_SD,
            a_SH=np.ascontiguousarray(a_SH[:n, :units]),
            beta_H=beta_H[:units],
            y_SE=y_SE + self._b2_E,
            n_GG=n_GG,
            v_SG=v_SG[:n],
        )

    def _multiplied_out(self, low_rank: LowRank) -> Mapping[str, FloatArray]:
        return low_rank.multiplied_out(self._theta())

    def _theta(self) -> dict[str, FloatArray]:
        h = self._inner.hidden_dim
        w1, b1, w2 = (t.cpu().numpy() for t in (self._terms.w1, self._terms.b1, self._terms.w2))
        return {"w1": w1[:h], "b1": b1[:h], "w2": w2[:, :h], "b2": self._b2_E}

    def _episode(self, cut: Cut) -> Episode:
        kept = self._raw.episode(cut)
        return Episode(
            kept.x_support_SD,
            kept.y_support_SE + self._b2_E,
            kept.x_query_QD,
            kept.y_query_QE + self._b2_E,
        )

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class HostFactors(NamedTuple):
    """One stream's `model.inner.hidden.result.Factors`, in host memory."""

    a_SH: FloatArray
    beta_H: FloatArray
    n_GG: FloatArray
    v_SG: FloatArray


def _of_first(descent: Descent, streams: int) -> Descent:
    """The descent of the first streams; views."""
    head = head_of(*(tensor[:streams] for tensor in descent.head[:3]))
    a_BSH, beta_BH = descent.a_BSH[:streams], descent.beta_BH[:streams]
    return descent._replace(a_BSH=a_BSH, beta_BH=beta_BH, head=head)


class _Lazy(Mapping[str, FloatArray]):
    """Tensors that are made when they are first looked at: most mappings are never published."""

    def __init__(self, make: Callable[[], Mapping[str, FloatArray]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, FloatArray]:
        return self._make()

    def __getitem__(self, name: str) -> FloatArray:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
