"""The engine: contents to features, episodes to adapted mappings, on a CPU or a GPU.

R = rows (contents; pairs, each taken alone), B = streams in batch (a chunk), S = support pairs,
Q = query pairs, N = pairs of a stream, D = source dim, E = target dim, H = hidden units

    support, targets in units → generator (each stream's start) → learner (the inner loop) → θ′
    judged on the query beside θ unadapted and ridge regression; the winner learns from all pairs

What holds for bits. A content's features and a stream's adaptation depend on nothing else in the
call: neither on how many others there are, nor on where it stands, nor on what the others hold. No
operation reads across streams. The kernels could still choose another order of summation for
another shape or another alignment, therefore both are fixed: windows are padded to the capacities
(`model.serving.packing`), contents to whole chunks, and on a GPU streams to whole chunks too. On a
CPU streams are not padded, because torch's batched products run matrix by matrix there: that is
measured (`tests/model/test_engine_bits.py`, x86), not promised by torch. Between devices, torch
versions or thread counts results agree to rounding only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import losses
from model.encoders.build import encoder_from
from model.encoders.encoder import Encoder
from model.inner import cost_rule, learners
from model.inner.cost_rule import Form
from model.inner.generators import generator_of
from model.inner.hidden.learners import descend_by
from model.inner.hidden.projected import terms
from model.inner.learner import Support, adapt, finite
from model.inner.units import frame_of, in_frame, mean_target, out_of_frame, whole_units
from model.mappings.mlp import Mlp, apply_batched
from model.serving import rival
from model.serving.device_faults import lost_device_told
from model.serving.hidden_judging import InnerLoop
from model.serving.hidden_windows import HiddenWindows
from model.serving.judging import Judged, PairLosses, judged, measured, order_of, winners
from model.serving.lazy import LazyTensors
from model.serving.packing import (
    every_pair,
    pack_pairs,
    query_pairs,
    support_pairs,
    with_idle_units,
    without_idle_units,
)
from model.serving.repeats import digests, new_to
from model.serving.windows import EpisodeWindows, RawWindows
from model.theta.info import ThetaInfo, info_of
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray, HalfArray, aligned
from model.values.contents import Content
from model.values.episode import Adaptation, Candidate, Episode
from model.values.errors import BadContent

Side = Literal["source", "target"]

HIDDEN_PAIRS_PER_CHUNK = {"cpu": 768, "cuda": 16_384}
"""Support pairs: on a CPU what a step works on stays in the last cache, and what a chunk costs
however small it is, is shared; on a GPU all of it is busy."""
STREAMS_PER_CHUNK = {"cpu": 8, "cuda": 256}
"""On a CPU core pair 8 take 0.8 of the time that 32 take, at 256 and 1,024 source dimensions."""


class Fitted(NamedTuple):
    """θ′ of B streams."""

    mlp: Mlp
    healthy_B: Tensor
    """Whether it is finite."""
    centred_B: Tensor
    """Whether it was adapted to centred targets."""


class Engine:
    """One θ on one device. Not thread-safe; `prepare` alone may be called from any thread."""

    def __init__(
        self,
        meta_init: MetaInit,
        device: str = "auto",
        chunk: int | None = None,
        support_capacity: int = 64,
        query_capacity: int = 16,
        extra_steps: int = 0,
        ridge: bool = True,
        spill_dir: Path | None = None,
    ) -> None:
        """Put θ on `device` ("cpu", "cuda", "cuda:N", or "auto": a GPU if there is one).

        `chunk` streams are adapted at a time, by default as many as stay in a CPU's cache or keep a
        GPU busy. An episode holds at most
        `support_capacity` and `query_capacity` pairs, and every episode costs as much as a full
        one: set them to the window's sizes. `extra_steps` inner steps are tried beyond those that
        θ was trained for, and taken back where they do not help (`model.inner.learners`). `ridge`
        fits ridge regression beside, for the gate to judge by.
        Raises BadMetaInit when a part of θ is not known or does not fit, ValueError for a device,
        chunk or capacity that cannot be.
        """
        self._meta_init = meta_init
        self._device = _resolve(device)
        self._chunk = STREAMS_PER_CHUNK[self._device.type] if chunk is None else chunk
        if min(self._chunk, support_capacity) < 1 or query_capacity < 0:
            raise ValueError("chunk and support_capacity must be at least 1, query_capacity 0")
        self._support_capacity = support_capacity
        self._query_capacity = query_capacity
        self._ridge = ridge
        self._order = order_of(trained=meta_init.is_trained, ridge=ridge)
        self._spill_dir = spill_dir
        self._encoders = self._load_encoders(meta_init)
        self._generator = generator_of(meta_init, self._device)
        self._learner = learners.build(
            meta_init.learner.config,
            {name: self._to_device(tensor) for name, tensor in meta_init.learner.tensors.items()},
            meta_init.activation,
            meta_init.output_activation,
            extra_steps,
        )
        self._loss = losses.judged_by(learners.loss_of(meta_init.learner.config))
        self._info = info_of(meta_init, self._loss.kind)
        mapping = with_idle_units(meta_init.mapping, meta_init.activation)
        self._theta = Mlp(**{name: self._to_device(tensor) for name, tensor in mapping.items()})
        self._unadapted = self._start_without_pairs()

    @property
    def meta_init(self) -> MetaInit:
        """The θ that this engine serves, with its tensors."""
        return self._meta_init

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda:N"."""
        return str(self._device)

    @property
    def theta(self) -> ThetaInfo:
        """What the θ is that this engine serves."""
        return self._info

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        """The unadapted mapping: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32; copies.

        θ's own, or what its generator makes of no pairs.
        """
        tensors = {n: t[0].cpu().numpy() for n, t in self._unadapted._asdict().items()}
        return without_idle_units(tensors, self._meta_init.hidden_dim)

    @staticmethod
    def to_half(numbers: FloatArray) -> HalfArray:
        """Returns each number's nearest float16, ties to even, in the same shape.

        The same as numpy's `astype(np.float16)`, in a twentieth of its time.
        """
        numbers = np.require(
            numbers, np.float32, ["C", "W"]
        )  # torch takes no others without a word
        half: HalfArray = torch.from_numpy(numbers).half().numpy()
        return half

    def prepare(self, side: Side, modality: str, content: Content) -> NDArray[Any]:
        """Check one content and make it an array `encode` takes; cheap, without torch.

        Raises BadContent with reason `wrong_modality`, or those of the encoder's own `prepare`.
        """
        expected = (
            self._meta_init.source_modality if side == "source" else self._meta_init.target_modality
        )
        if modality != expected:
            raise BadContent(
                "wrong_modality", f"{side} is {modality!r}, this meta-init maps {expected!r}"
            )
        return self._encoders[side].prepare(content)

    def encode(self, side: Side, prepared: Sequence[NDArray[Any]]) -> FloatArray:
        """Features (R, d), float32, of what `prepare` gave for the same side. Raises DeviceLost."""
        if not prepared:
            return np.zeros((0, self._encoders[side].dim), np.float32)
        with lost_device_told():
            features_RD = self._encoders[side].encode(prepared)
            return np.asarray(features_RD.cpu().numpy(), np.float32)

    def windows(self, capacity: int, form: Form = "auto") -> EpisodeWindows | HiddenWindows:
        """Empty windows for so many streams, of the capacities' sizes together.

        `form` is for tests and benchmarks; by itself the engine takes what costs less
        (`model.inner.cost_rule`). Raises OSError when there is no room in `spill_dir`, ValueError
        for hidden space where there is none.
        """
        capacities = (self._support_capacity, self._query_capacity)
        raw = RawWindows(
            capacity,
            sum(capacities),
            self._meta_init.source_dim,
            self._meta_init.target_dim,
            self._spill_dir,
        )
        inner = self._inner_loop() if form != "full" else None
        if inner is None and form == "hidden":
            raise ValueError(f"θ {self._meta_init.version} has no hidden space")
        if inner is None or (form == "auto" and not self._hidden_pays()):
            return EpisodeWindows(raw, self.adapt)
        pairs = HIDDEN_PAIRS_PER_CHUNK[self._device.type]
        chunk = max(1, pairs // aligned(self._support_capacity))
        return HiddenWindows(raw, inner, capacities, chunk, self.adapt)

    def _inner_loop(self) -> InnerLoop | None:
        """In hidden space, where θ's generator and learner have one."""
        theta = self._meta_init
        if theta.generator.kind == "attention" or theta.output_activation != "none":
            return None
        made = terms(self._theta)
        descend = descend_by(self._learner, made)
        if descend is None:
            return None
        return InnerLoop(made, descend, theta.activation, self._loss, self._order, theta.hidden_dim)

    def _hidden_pays(self) -> bool:
        spec = self._meta_init.learner
        steps = len(spec.tensors["rates"]) if "rates" in spec.tensors else 1
        dims = (self._meta_init.source_dim, self._meta_init.hidden_dim, self._meta_init.target_dim)
        return cost_rule.hidden_pays(*dims, self._support_capacity, steps)

    def adapt(
        self, episodes: Sequence[Episode], wanted: Sequence[bool] | None = None
    ) -> list[Adaptation]:
        """θ′ of every episode, in order, with what it is judged beside.

        An episode whose values explode, or are not finite to begin with, gets `finite=False`
        and leaves the others as they are. `wanted` says which will probably be published: θ′ of
        the others is adapted to all pairs when it is read. Raises ValueError for an episode over
        capacity or of other dims.
        """
        asked = [True] * len(episodes) if wanted is None else wanted
        return [
            adaptation
            for start in range(0, len(episodes), self._chunk)
            for adaptation in self._adapt_chunk(
                episodes[start : start + self._chunk], asked[start : start + self._chunk]
            )
        ]

    @torch.inference_mode()
    def _adapt_chunk(self, episodes: Sequence[Episode], wanted: Sequence[bool]) -> list[Adaptation]:
        support = self._pack([support_pairs(e) for e in episodes], self._support_capacity)
        query = self._pack([query_pairs(e) for e in episodes], self._query_capacity)
        judges = [new_to(digests(e.x_support_SD), digests(e.x_query_QD)) for e in episodes]
        fitted = self._fitted(support)
        found = self._judged(fitted, support, query, self._real(judges, query))
        refitted = self._refitted(
            [
                (b, episodes[b], found[b].centred)
                for b in range(len(episodes))
                if wanted[b] and found[b].winner is Candidate.ADAPTED
            ]
        )
        return [
            self._adaptation(episode, found[b], refitted.get(b), int(judges[b].sum()))
            for b, episode in enumerate(episodes)
        ]

    def _fitted(self, support: Support, centred_B: Tensor | None = None) -> Fitted:
        """θ′ of every stream, adapted to its support in units of its targets."""
        frame = frame_of(support, centred_B)
        if self._meta_init.output_activation != "none":  # not to be scaled from inside
            frame = whole_units(support)
        framed = in_frame(support, frame)
        state = adapt(self._learner, self._generator.start(self._theta, framed), framed)
        mlp = out_of_frame(state.mlp, frame)
        return Fitted(mlp, state.healthy_B & finite(mlp), frame.units.centred_B)

    def _judged(
        self, fitted: Fitted, support: Support, query: Support, judges_BQ: Tensor
    ) -> list[Judged]:
        before = Mlp(*(t.expand(len(support.x_BSD), *t.shape[1:]) for t in self._unadapted))
        outputs = {
            Candidate.ADAPTED: self._outputs(fitted.mlp, query),
            Candidate.THETA: self._outputs(before, query),
        }
        if self._ridge:
            outputs[Candidate.RIDGE] = rival.predict(rival.fit(support), query.x_BSD)
        losses = {name: self._losses(o_BQE, query) for name, o_BQE in outputs.items()}
        no_losses_BQ = torch.full_like(query.x_BSD[:, :, 0], torch.nan)
        pair_losses = PairLosses(
            self._losses(self._outputs(before, support), support),
            self._losses(self._outputs(fitted.mlp, support), support),
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
            winners(self._order, measures, judges_BQ),
            measures[Candidate.ADAPTED].healthy_B,
            fitted.centred_B,
        )

    def _refitted(
        self, chosen: Sequence[tuple[int, Episode, bool]]
    ) -> dict[int, Mapping[str, FloatArray]]:
        """θ′ of the chosen episodes, adapted to support and query, where that is finite."""
        if not chosen:
            return {}
        capacity = self._support_capacity + self._query_capacity
        pairs = self._pack([every_pair(episode) for _, episode, _ in chosen], capacity)
        return self._finite_mappings([b for b, _, _ in chosen], pairs, [c for *_, c in chosen])

    def _finite_mappings(
        self, places: Sequence[int], pairs: Support, centred: Sequence[bool]
    ) -> dict[int, Mapping[str, FloatArray]]:
        flags = np.zeros(len(pairs.x_BSD), np.bool_)
        flags[: len(centred)] = centred
        fitted = self._fitted(pairs, self._to_device(flags))
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
    def _whole(self, episode: Episode, centred: bool) -> Mapping[str, FloatArray]:
        """θ′ of an episode that was not wanted at first, or whose pairs together explode."""
        found = self._refitted([(0, episode, centred)])
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
        judged_pairs: int,
    ) -> Adaptation:
        ridge = None
        if found.winner is Candidate.RIDGE:
            ridge = LazyTensors(
                lambda: rival.of_pairs(*every_pair(episode), len(episode.x_support_SD))
            )
        return Adaptation(
            made or LazyTensors(lambda: self._whole(episode, found.centred)),
            *found[:4],
            finite=found.finite,
            query_loss_ridge=found.query_ridge,
            ridge=ridge,
            winner=found.winner,
            judged_pairs=judged_pairs,
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
        return losses.value(self._loss, o_R1E, y_R1E, real_R1).view(count, -1)

    @torch.inference_mode()
    def _start_without_pairs(self) -> Mlp:
        no_pairs = (
            np.zeros((0, self._meta_init.source_dim), np.float32),
            np.zeros((0, self._meta_init.target_dim), np.float32),
        )
        nothing = self._pack([no_pairs], self._support_capacity)
        return Mlp(*(t[:1] for t in self._generator.start(self._theta, nothing)))

    def _load_encoders(self, theta: MetaInit) -> dict[Side, Encoder]:
        return {
            "source": encoder_from(
                theta.source_encoder, theta.source_modality, theta.source_dim, self._device
            ),
            "target": encoder_from(
                theta.target_encoder, theta.target_modality, theta.target_dim, self._device
            ),
        }

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, device=self._device)


def _resolve(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:N, auto") from error
    if resolved.type not in STREAMS_PER_CHUNK:
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:N, auto")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: torch sees {torch.cuda.device_count()} GPUs")
    return resolved
