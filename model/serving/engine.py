"""The engine: contents to features, episodes to adapted mappings, on a CPU or a GPU.

R = rows (contents; pairs, each taken alone), B = streams in batch (a chunk), S = support pairs,
Q = query pairs, N = pairs of a stream, D = source dim, E = target dim, H = hidden units

    support, in units → generator (each stream's start) → learner (the inner loop) → θ′
    judged on the query beside θ unadapted and a linear map; the winner, unless it is θ, learns from
    all pairs

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
from typing import Any, Literal

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
from model.inner.units import UsualSources
from model.mappings.mlp import Mlp
from model.serving.device_faults import lost_device_told
from model.serving.full_form import FullForm, InFull
from model.serving.hidden_judging import InnerLoop
from model.serving.hidden_windows import HiddenWindows
from model.serving.judging import order_of
from model.serving.packing import with_idle_units, without_idle_units
from model.serving.windows import EpisodeWindows, RawWindows
from model.theta.info import ThetaInfo, info_of
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray, HalfArray, aligned
from model.values.contents import Content
from model.values.episode import Adaptation, Episode
from model.values.errors import BadContent

Side = Literal["source", "target"]

HIDDEN_PAIRS_PER_CHUNK = {"cpu": 768, "cuda": 16_384}
"""Support pairs: on a CPU what a step works on stays in the last cache, and what a chunk costs
however small it is, is shared; on a GPU all of it is busy."""
STREAMS_PER_CHUNK = {"cpu": 8, "cuda": 256}
"""On a CPU core pair 8 take 0.8 of the time that 32 take, at 256 and 1,024 source dimensions."""


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
        GPU busy. An episode holds at most `support_capacity` and `query_capacity` pairs, and every
        episode costs as much as a full one: set them to the window's sizes. `extra_steps` inner
        steps are tried beyond those that θ was trained for, and taken back where they do not help
        (`model.inner.extra_steps`). `ridge` fits linear maps beside (ridge regression, and
        Procrustes for a θ that was not meta-trained), for the gate to judge and to publish.
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
        self._order = order_of(trained=meta_init.is_trained, ridge=ridge)
        self._spill_dir = spill_dir
        self._encoders = self._load_encoders(meta_init)
        generator = generator_of(meta_init, self._device)
        self._learner = learners.build(
            meta_init.learner.config,
            {name: self._to_device(tensor) for name, tensor in meta_init.learner.tensors.items()},
            meta_init.activation,
            meta_init.output_activation,
            extra_steps,
            meta_init.hidden_dim,
        )
        self._loss = losses.judged_by(learners.loss_of(meta_init.learner.config))
        self._info = info_of(meta_init, self._loss.kind)
        mapping = with_idle_units(meta_init.mapping, meta_init.activation)
        self._theta = Mlp(**{name: self._to_device(tensor) for name, tensor in mapping.items()})
        self._usual = self._usual_sources()
        self._full_form = FullForm(
            meta_init,
            InFull(self._theta, generator, self._learner, self._loss, self._order, self._usual),
            (support_capacity, query_capacity),
            self._chunk,
        )

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
        tensors = {n: t[0].cpu().numpy() for n, t in self._full_form.unadapted._asdict().items()}
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
        return InnerLoop(
            made,
            descend,
            theta.activation,
            self._loss,
            self._order,
            theta.hidden_dim,
            standardise=theta.standardises_sources,
            usual=self._usual,
            keeps_small_sources=not bool(theta.mapping["b1"].any()),
        )

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
        return self._full_form.adapt(episodes, [True] * len(episodes) if wanted is None else wanted)

    def _load_encoders(self, theta: MetaInit) -> dict[Side, Encoder]:
        return {
            "source": encoder_from(
                theta.source_encoder, theta.source_modality, theta.source_dim, self._device
            ),
            "target": encoder_from(
                theta.target_encoder, theta.target_modality, theta.target_dim, self._device
            ),
        }

    def _usual_sources(self) -> UsualSources | None:
        """Those that θ tells; none where it has all standardised."""
        told = self._meta_init.usual_sources
        if told is None or self._meta_init.standardises_sources:
            return None
        return UsualSources(self._to_device(told.tensors["mean"]), told.tensors["spread"].item())

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
