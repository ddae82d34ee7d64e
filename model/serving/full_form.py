"""Whole episodes, adapted and judged with every stream's weights in full.

B = streams in batch (a chunk), S = support pairs, Q = query pairs, N = pairs of a stream, R = rows
(pairs, each taken alone), D = source dim, E = target dim

Whatever a θ's generator and learner are, this form does it; `model.serving.hidden_windows` is the
faster one for those that have a hidden space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import losses
from model.inner.generators import Generator
from model.inner.hidden.halves import Grams, halves_seen
from model.inner.learner import Learner, Support, adapt, finite
from model.inner.neighbours import missed
from model.inner.units import (
    UsualSources,
    frame_of,
    in_frame,
    mean_target,
    out_of_frame,
    with_whole_targets,
)
from model.losses import Loss
from model.mappings.mlp import Mlp, apply_batched
from model.serving import rival
from model.serving.judging import (
    HalvesCosines,
    Judged,
    PairLosses,
    SupportMissed,
    asks_support,
    halves_cosines,
    judged,
    measured,
    measures_of,
    standing,
)
from model.serving.lazy import LazyTensors
from model.serving.packing import (
    every_pair,
    pack_pairs,
    query_pairs,
    support_pairs,
    without_idle_units,
)
from model.serving.repeats import digests, new_to, single
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate, Episode


class InFull(NamedTuple):
    """θ and what adapts it, on one device, and what adaptations are judged by."""

    theta: Mlp
    """With idle units."""
    generator: Generator
    learner: Learner
    loss: Loss
    """What losses are told in: mse or cosine."""
    order: tuple[Candidate, ...]
    """The candidates from the first incumbent to the last challenger (`model.serving.judging`)."""
    usual: UsualSources | None
    """The sources that θ was trained on, where it tells; None where all are standardised."""


class Fitted(NamedTuple):
    """θ′ of B streams."""

    mlp: Mlp
    healthy_B: Tensor
    """Whether it is finite."""


class FullForm:
    """Adapts episodes of at most so many pairs, `chunk` streams at a time."""

    def __init__(
        self, meta_init: MetaInit, in_full: InFull, capacities: tuple[int, int], chunk: int
    ) -> None:
        """`capacities` are those of support and query."""
        self._meta_init, self._in_full, self._chunk = meta_init, in_full, chunk
        self._support_capacity, self._query_capacity = capacities
        self._device = in_full.theta.w1.device
        self.unadapted = self._start_without_pairs()
        """The start that the generator makes of no pairs (B = 1)."""

    def adapt(self, episodes: Sequence[Episode], wanted: Sequence[bool]) -> list[Adaptation]:
        """See `model.serving.engine.Engine.adapt`."""
        return [
            adaptation
            for start in range(0, len(episodes), self._chunk)
            for adaptation in self._adapt_chunk(
                episodes[start : start + self._chunk], wanted[start : start + self._chunk]
            )
        ]

    @torch.inference_mode()
    def _adapt_chunk(self, episodes: Sequence[Episode], wanted: Sequence[bool]) -> list[Adaptation]:
        support = self._pack([support_pairs(e) for e in episodes], self._support_capacity)
        query = self._pack([query_pairs(e) for e in episodes], self._query_capacity)
        known = [digests(e.x_support_SD) for e in episodes]
        judges = [
            new_to(own, digests(e.x_query_QD)) for own, e in zip(known, episodes, strict=True)
        ]
        singles = [single(own) for own in known]
        fitted = self._fitted(support)
        pairs = (self._real(singles, support), self._real(judges, query))
        found = self._judged(fitted, support, query, pairs)
        wins = {
            winner: [
                (b, episodes[b])
                for b in range(len(episodes))
                if wanted[b] and found[b].winner is winner
            ]
            for winner in (Candidate.ADAPTED, *rival.FITS)
        }
        refitted = self._refitted(wins[Candidate.ADAPTED])
        linear = {
            b: made for kind in rival.FITS for b, made in self._linear(kind, wins[kind]).items()
        }
        return [
            self._adaptation(
                episode, found[b], refitted.get(b), linear.get(b), int(judges[b].sum())
            )
            for b, episode in enumerate(episodes)
        ]

    def _fitted(self, support: Support) -> Fitted:
        """θ′ of every stream, adapted to its support in units of its pairs."""
        frame = frame_of(
            support,
            standardise=self._meta_init.standardises_sources,
            usual=self._in_full.usual,
        )
        if self._meta_init.output_activation != "none":
            frame = with_whole_targets(frame)
        framed = in_frame(support, frame)
        state = adapt(
            self._in_full.learner,
            self._in_full.generator.start(self._in_full.theta, framed),
            framed,
        )
        mlp = out_of_frame(state.mlp, frame)
        return Fitted(mlp, state.healthy_B & finite(mlp))

    def _judged(
        self, fitted: Fitted, support: Support, query: Support, judging: tuple[Tensor, Tensor]
    ) -> list[Judged]:
        """`judging` are the pairs of the support (B, S) and of the query (B, Q) that judge."""
        before = Mlp(*(t.expand(len(support.x_BSD), *t.shape[1:]) for t in self.unadapted))
        outputs = {
            Candidate.ADAPTED: self._outputs(fitted.mlp, query),
            Candidate.THETA: self._outputs(before, query),
        }
        on_support_BSE, found = self._outputs(fitted.mlp, support), None
        if Candidate.RIDGE in self._in_full.order:
            ridge, missed_BS = rival.fit_leaving_out(support)
            outputs[Candidate.RIDGE] = rival.predict(ridge, query.x_BSD)
            if asks_support(self._in_full.order):
                found = SupportMissed(_missed(on_support_BSE, support), missed_BS, judging[0])
        halves = None
        if Candidate.PROCRUSTES in self._in_full.order:
            rotation = rival.fit_about_zero(support)
            outputs[Candidate.PROCRUSTES] = rival.predict(rotation, query.x_BSD)
            halves = _halves(support, judging[0])
        losses = {name: self._losses(o_BQE, query) for name, o_BQE in outputs.items()}
        no_losses_BQ = torch.full_like(query.x_BSD[:, :, 0], torch.nan)
        pair_losses = PairLosses(
            self._losses(self._outputs(before, support), support),
            self._losses(on_support_BSE, support),
            losses[Candidate.THETA],
            losses[Candidate.ADAPTED],
            losses.get(Candidate.RIDGE, no_losses_BQ),
        )
        on_support_B = pair_losses.support_after_BS.masked_fill(~support.real_BS, 0.0).sum(1)
        finite_B = fitted.healthy_B & on_support_B.isfinite()
        every_B = torch.ones_like(finite_B)
        mean_B1E = mean_target(support)
        measures = {
            name: measured(
                o_BQE,
                query.y_BSE,
                mean_B1E,
                finite_B if name is Candidate.ADAPTED else every_B,
                query.real_BS,
            )
            for name, o_BQE in outputs.items()
        }
        return judged(
            pair_losses,
            (support.real_BS, query.real_BS),
            standing(self._in_full.order, measures, judging[1], found, halves),
        )

    def _refitted(
        self, chosen: Sequence[tuple[int, Episode]]
    ) -> dict[int, Mapping[str, FloatArray]]:
        """θ′ of the chosen episodes, adapted to support and query, where that is finite."""
        if not chosen:
            return {}
        capacity = self._support_capacity + self._query_capacity
        pairs = self._pack([every_pair(episode) for _, episode in chosen], capacity)
        return self._finite_mappings([b for b, _ in chosen], pairs)

    def _linear(
        self, kind: Candidate, chosen: Sequence[tuple[int, Episode]]
    ) -> dict[int, Mapping[str, FloatArray]]:
        """A linear map of the chosen episodes, fitted to support and query."""
        if not chosen:
            return {}
        capacity = self._support_capacity + self._query_capacity
        pairs = [every_pair(episode) for _, episode in chosen]
        fitted = rival.FITS[kind](self._pack(pairs, capacity))
        return {
            b: rival.whole_or_judged(fitted, row, pairs[row], len(episode.x_support_SD), kind)
            for row, (b, episode) in enumerate(chosen)
        }

    @torch.inference_mode()
    def _linear_of(self, kind: Candidate, episode: Episode) -> Mapping[str, FloatArray]:
        """A linear map of an episode that was not wanted at first."""
        return self._linear(kind, [(0, episode)])[0]

    def _finite_mappings(
        self, places: Sequence[int], pairs: Support
    ) -> dict[int, Mapping[str, FloatArray]]:
        fitted = self._fitted(pairs)
        stacked = {name: tensor.cpu().numpy() for name, tensor in fitted.mlp._asdict().items()}
        healthy_B = fitted.healthy_B.cpu().tolist()
        return {
            place: without_idle_units(
                {name: tensors[i] for name, tensors in stacked.items()}, self._meta_init.hidden_dim
            )
            for i, place in enumerate(places)
            if healthy_B[i]
        }

    @torch.inference_mode()
    def _whole(self, episode: Episode) -> Mapping[str, FloatArray]:
        """θ′ of an episode that was not wanted at first, or whose pairs together explode."""
        found = self._refitted([(0, episode)])
        if found:
            return found[0]
        support = self._pack([support_pairs(episode)], self._support_capacity)
        tensors = {n: t[0].cpu().numpy() for n, t in self._fitted(support).mlp._asdict().items()}
        return without_idle_units(tensors, self._meta_init.hidden_dim)

    def _adaptation(
        self,
        episode: Episode,
        found: Judged,
        made: Mapping[str, FloatArray] | None,
        linear: Mapping[str, FloatArray] | None,
        judged_pairs: int,
    ) -> Adaptation:
        winner, ridge = found.winner, None
        if winner.is_linear:
            linear = linear or LazyTensors(lambda: self._linear_of(winner, episode))
        if winner is Candidate.RIDGE:
            ridge = linear
        elif Candidate.RIDGE in self._in_full.order:
            ridge = LazyTensors(lambda: self._linear_of(Candidate.RIDGE, episode))
        return Adaptation(
            made or LazyTensors(lambda: self._whole(episode)),
            *found[:4],
            finite=found.finite,
            query_loss_ridge=found.query_ridge,
            ridge=linear,
            rival=ridge,
            winner=winner,
            judged_pairs=judged_pairs,
            evidence=found.evidence.of(self._query_capacity),
            ahead_squared=found.ahead_squared,
            ahead_cosine=found.ahead_cosine,
        )

    def _real(self, judges: Sequence[NDArray[np.bool_]], query: Support) -> Tensor:
        """The judging pairs of each stream, padded."""
        padded_BQ = np.zeros(query.real_BS.shape, np.bool_)
        for row_Q, own_Q in zip(padded_BQ, judges, strict=False):  # rows of a GPU's chunk are left
            row_Q[: len(own_Q)] = own_Q
        return self._to_device(padded_BQ)

    def _pack(self, pairs: Sequence[tuple[FloatArray, FloatArray]], capacity: int) -> Support:
        rows = len(pairs) if self._device.type == "cpu" else self._chunk
        packed = pack_pairs(
            pairs, rows, capacity, (self._meta_init.source_dim, self._meta_init.target_dim)
        )
        return Support(
            self._to_device(packed.x_BND),
            self._to_device(packed.y_BNE),
            self._to_device(packed.real_BN),
        )

    def _outputs(self, mlp: Mlp, pairs: Support) -> Tensor:
        meta_init = self._meta_init
        return apply_batched(mlp, pairs.x_BSD, meta_init.activation, meta_init.output_activation)

    def _losses(self, o_BNE: Tensor, pairs: Support) -> Tensor:
        """The loss of each pair (B, N): that of a stream which has this pair alone."""
        count, _, dim = o_BNE.shape
        o_R1E, y_R1E = o_BNE.reshape(-1, 1, dim), pairs.y_BSE.reshape(-1, 1, dim)
        real_R1 = pairs.real_BS.reshape(-1, 1)
        return losses.value(self._in_full.loss, o_R1E, y_R1E, real_R1).view(count, -1)

    @torch.inference_mode()
    def _start_without_pairs(self) -> Mlp:
        no_pairs = (
            np.zeros((0, self._meta_init.source_dim), np.float32),
            np.zeros((0, self._meta_init.target_dim), np.float32),
        )
        nothing = self._pack([no_pairs], self._support_capacity)
        return Mlp(*(t[:1] for t in self._in_full.generator.start(self._in_full.theta, nothing)))

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=self._device)


def _missed(o_BSE: Tensor, support: Support) -> Tensor:
    """1 for each output that is nearer to another pair's target than to its own, else 0 (B, S)."""
    _, y_BSE, real_BS = support.cleaned()
    mean_B1E = mean_target(support)
    o_BSE, y_BSE = o_BSE - mean_B1E, y_BSE - mean_B1E
    return missed(torch.bmm(o_BSE, y_BSE.transpose(1, 2)), y_BSE.square().sum(2), real_BS)


def _halves(support: Support, single_BS: Tensor) -> HalvesCosines:
    x_BSD, y_BSE, real_BS = support.cleaned()
    real_BS1, n_B11 = real_BS.unsqueeze(2), real_BS.sum(1).clamp(min=1).view(-1, 1, 1)
    x_mean_B1D, y_mean_B1E = (t.sum(1, keepdim=True) / n_B11 for t in (x_BSD, y_BSE))
    x_around_BSD = (x_BSD - x_mean_B1D).masked_fill(~real_BS1, 0.0)
    y_around_BSE = (y_BSE - y_mean_B1E).masked_fill(~real_BS1, 0.0)
    seen = halves_seen(_grams(x_around_BSD, y_around_BSE, real_BS), _grams(x_BSD, y_BSE, real_BS))
    every_B = torch.ones_like(real_BS[:, 0])
    ridge, procrustes = (measures_of(s.squared_BQ, *s, every_B, real_BS) for s in seen)
    return halves_cosines(ridge, procrustes, single_BS)


def _grams(x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor) -> Grams:
    g_BSS, gamma_BSS = (torch.bmm(t, t.transpose(1, 2)) for t in (x_BSD, y_BSE))
    return Grams(g_BSS, gamma_BSS, real_BS)
