"""The engine: contents to features, episodes to adapted mappings, on a CPU or a GPU.

N = contents, B = streams in a chunk, S = support pairs, Q = query pairs, D = source dim,
E = target dim, P = pixels a side, C = colours

What holds for bits. A content's features and a stream's adaptation depend on nothing else in the
call: neither on how many others there are, nor on where it stands, nor on what the others hold.
No operation reads across streams. The kernels could still choose another order of summation for
another shape or another alignment, therefore both are fixed: windows are padded to the
capacities (`model.packing`), pictures to whole chunks, and on a GPU streams to whole chunks too.
On a CPU streams are not padded, because torch's batched products run matrix by matrix there: that
is measured (`tests/model/test_engine_bits.py`, x86), not promised by torch.
Between devices, torch versions or thread counts results agree to rounding only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.encoders.image import ImageEncoder
from model.encoders.pixels import decode_picture
from model.encoders.vectors import check_vector
from model.episode import Adaptation, Episode, FloatArray
from model.errors import BadContent, BadMetaInit
from model.inner import batched
from model.losses import masked_mean_squared_error
from model.mappings.mlp import Mlp, apply_batched, expand
from model.meta_init import MetaInit, Modality
from model.packing import pack_pairs, query_of, support_of, with_idle_units, without_idle_units

Side = Literal["source", "target"]
Content = bytes | str | NDArray[np.generic]

STREAMS_PER_CHUNK = {"cpu": 8, "cuda": 256}
"""On a CPU core pair 8 take 0.8 of the time that 32 take, at 256 and 1,024 source dimensions."""
PICTURES_PER_CHUNK = {"cpu": 4, "cuda": 128}
"""A lone picture costs a whole chunk: 3 ms on a CPU core pair. Larger CPU chunks gain nothing."""


class Engine:
    """One θ on one device. Not thread-safe; `prepare` alone may be called from any thread."""

    def __init__(
        self,
        meta_init: MetaInit,
        device: str = "auto",
        chunk: int | None = None,
        support_capacity: int = 64,
        query_capacity: int = 16,
    ) -> None:
        """Put θ on `device` ("cpu", "cuda", "cuda:N", or "auto": a GPU if there is one).

        `chunk` streams are adapted at a time, by default as many as stay in a CPU's cache or keep a
        GPU busy. An episode holds at most
        `support_capacity` and `query_capacity` pairs, and every episode costs as much as a full
        one: set them to the window's sizes. Raises BadMetaInit when θ needs an encoder that is
        not there, ValueError for a device, chunk or capacity that cannot be.
        """
        self._meta_init = meta_init
        self._device = _resolve(device)
        self._chunk = STREAMS_PER_CHUNK[self._device.type] if chunk is None else chunk
        if min(self._chunk, support_capacity) < 1 or query_capacity < 0:
            raise ValueError("chunk and support_capacity must be at least 1, query_capacity 0")
        self._support_capacity = support_capacity
        self._query_capacity = query_capacity
        self._activation = meta_init.activation
        mapping = with_idle_units(meta_init.mapping, meta_init.activation)
        self._theta = Mlp(**{name: self._put(tensor) for name, tensor in mapping.items()})
        self._rates_K4 = self._put(meta_init.rates_K4)
        self._encoder = _image_encoder(meta_init, self._device)

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda:N"."""
        return str(self._device)

    @property
    def meta_init_version(self) -> str:
        """Of θ."""
        return self._meta_init.version

    @property
    def encoder_version(self) -> str:
        """Features of different encoder versions must not meet in one window."""
        return self._meta_init.encoder_version

    @property
    def source_dim(self) -> int:
        """D: features of a source content."""
        return self._meta_init.source_dim

    @property
    def target_dim(self) -> int:
        """E: numbers of a target content."""
        return self._meta_init.target_dim

    @property
    def hidden_dim(self) -> int:
        """H: units of the mapping's hidden layer."""
        return self._meta_init.hidden_dim

    @property
    def activation(self) -> str:
        """σ of the mapping: relu, gelu, tanh or sigmoid."""
        return self._activation

    @property
    def source_modality(self) -> Modality:
        """What `prepare("source", ...)` takes."""
        return self._meta_init.source_modality

    @property
    def target_modality(self) -> Modality:
        """What `prepare("target", ...)` takes."""
        return self._meta_init.target_modality

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        """The unadapted mapping: w1 (H, D), b1 (H), w2 (E, H), b2 (E), float32; copies."""
        return {name: tensor.copy() for name, tensor in self._meta_init.mapping.items()}

    def prepare(self, side: Side, modality: str, content: Content) -> NDArray[np.generic]:
        """Check one content and make it an array `encode` takes; cheap, without torch.

        A vector becomes float32 (d,), a picture uint8 (P, P, 3). Raises BadContent with reason
        `wrong_modality`, `wrong_dimension`, `not_finite`, or those of `decode_picture`.
        """
        expected = self.source_modality if side == "source" else self.target_modality
        if modality != expected:
            raise BadContent(
                "wrong_modality", f"{side} is {modality!r}, this meta-init maps {expected!r}"
            )
        if expected == "vector":
            return check_vector(content, self._dim(side), side)
        assert self._encoder is not None  # held by _image_encoder
        if not isinstance(content, bytes):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"{side} image must be bytes, not {kind}")
        return decode_picture(content, self._encoder.side)

    def encode(self, side: Side, prepared: Sequence[NDArray[np.generic]]) -> FloatArray:
        """Features (N, d), float32, finite, of what `prepare` gave for the same side."""
        if not prepared:
            return np.zeros((0, self._dim(side)), np.float32)
        stacked = np.stack(prepared)
        if side == "target" or self._encoder is None:
            return stacked.astype(np.float32, copy=False)
        return self._encode_pictures(self._encoder, stacked)

    def adapt(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        """θ′ of every episode, in order.

        An episode whose values explode, or are not finite to begin with, gets `finite=False`
        and leaves the others as they are. Raises ValueError for an episode over capacity or of
        other dims.
        """
        return [
            adaptation
            for start in range(0, len(episodes), self._chunk)
            for adaptation in self._adapt_chunk(episodes[start : start + self._chunk])
        ]

    @torch.inference_mode()
    def _adapt_chunk(self, episodes: Sequence[Episode]) -> list[Adaptation]:
        support = self._pack([support_of(e) for e in episodes], self._support_capacity)
        query = self._pack([query_of(e) for e in episodes], self._query_capacity)
        before = expand(self._theta, len(support[0]))
        after = batched.adapt(self._theta, self._rates_K4, *support, self._activation)
        losses_4B = torch.stack(
            [self._losses(mlp, *pairs) for pairs in (support, query) for mlp in (before, after)]
        )
        return _adaptations(after, losses_4B, episodes, self._meta_init.hidden_dim)

    def _pack(
        self, pairs: Sequence[tuple[FloatArray, FloatArray]], capacity: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = len(pairs) if self._device.type == "cpu" else self._chunk
        packed = pack_pairs(pairs, rows, capacity, (self.source_dim, self.target_dim))
        return self._put(packed.x_BND), self._put(packed.y_BNE), self._put(packed.real_BN)

    def _losses(self, mlp: Mlp, x_BND: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
        """The loss of each stream (B); NaN where it has no pairs."""
        o_BNE = apply_batched(mlp, x_BND, self._activation)
        loss_B = masked_mean_squared_error(o_BNE, y_BNE, real_BN)
        return loss_B.masked_fill(~real_BN.any(1), float("nan"))

    def _encode_pictures(
        self, encoder: ImageEncoder, pixels_NPPC: NDArray[np.generic]
    ) -> FloatArray:
        chunk = PICTURES_PER_CHUNK[self._device.type]
        count = len(pixels_NPPC)
        padding = np.zeros((-count % chunk, *pixels_NPPC.shape[1:]), pixels_NPPC.dtype)
        pixels = self._put(np.concatenate([pixels_NPPC, padding]))
        features_ND = torch.cat([encoder.encode(part) for part in torch.split(pixels, chunk)])
        return np.asarray(features_ND[:count].cpu().numpy())

    def _dim(self, side: Side) -> int:
        return self.source_dim if side == "source" else self.target_dim

    def _put(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array, device=self._device)


def _resolve(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:N, auto") from error
    if resolved.type not in PICTURES_PER_CHUNK:
        raise ValueError(f"device {device!r} is none of cpu, cuda, cuda:N, auto")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: torch sees {torch.cuda.device_count()} GPUs")
    return resolved


def _image_encoder(meta_init: MetaInit, device: torch.device) -> ImageEncoder | None:
    if meta_init.target_modality != "vector":
        raise BadMetaInit(f"no encoder for {meta_init.target_modality!r} targets yet")
    if meta_init.source_modality == "vector" and meta_init.encoder is None:
        return None
    if meta_init.source_modality != "image" or meta_init.encoder is None:
        raise BadMetaInit(f"no encoder for {meta_init.source_modality!r} sources in this θ")
    encoder = ImageEncoder(meta_init.encoder, device)
    if encoder.dim != meta_init.source_dim:
        raise BadMetaInit(f"encoder gives {encoder.dim} features, not {meta_init.source_dim}")
    return encoder


def _adaptations(
    after: Mlp, losses_4B: Tensor, episodes: Sequence[Episode], hidden_dim: int
) -> list[Adaptation]:
    stacked = {name: tensor.cpu().numpy() for name, tensor in after._asdict().items()}
    losses_B4 = losses_4B.T[: len(episodes)].cpu().tolist()
    mappings = [{n: t[b] for n, t in stacked.items()} for b in range(len(episodes))]
    return [
        _adaptation(without_idle_units(mapping, hidden_dim), losses, episode)
        for mapping, losses, episode in zip(mappings, losses_B4, episodes, strict=True)
    ]


def _adaptation(
    tensors: Mapping[str, FloatArray], losses_4: list[float], episode: Episode
) -> Adaptation:
    support_before, support_after, query_before, query_after = losses_4
    losses = losses_4[:2] * bool(len(episode.x_support_SD))
    losses += losses_4[2:] * bool(len(episode.x_query_QD))
    return Adaptation(
        tensors=tensors,
        support_loss_before=support_before,
        support_loss_after=support_after,
        query_loss_before=query_before,
        query_loss_after=query_after,
        finite=all(map(math.isfinite, losses))
        and all(bool(np.isfinite(tensor).all()) for tensor in tensors.values()),
    )
