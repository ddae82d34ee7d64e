"""Emoji data as streams to be judged on, and as episodes to train baselines on.

N = pairs of a stream (one of each concept), Y = candidates (concepts), R = rows (pictures; of a
concept, after Y), P = pixels a side, C = channels (colours), Z = slots (languages), D = source dim,
E = target dim

A stream is a synthetic tenant, or a language, which is not synthetic. Every concept is one pair,
labelled with its index in `model.emoji.drawings.concepts()`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji.language_spaces import read_spaces
from model.emoji.tables import EmojiTable
from model.emoji.tenants import TENANT_SEED, Family, Tenant
from model.emoji.training_episodes import (
    LanguageEpisodes,
    NameFeatures,
    Pictures,
    TenantEpisodes,
)
from model.encoders.build import encoder_from
from model.meta.episodes import EpisodeSizes, EpisodeSource, IndexArray
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit, Modality, canonical_json
from model.theta.part import PartSpec
from model.values.arrays import FloatArray

CPU = torch.device("cpu")

Pixels = NDArray[np.uint8]


@dataclass(slots=True)
class FeatureCache:
    """Encodes every drawing and every name once, however many θs share an encoder."""

    _known: dict[tuple[str, str], FloatArray] = field(default_factory=dict)

    def pictures(self, theta: MetaInit, name: str, pixels_RPPC: Pixels) -> FloatArray:
        """Return features (R, D) of pictures by θ's encoder; `name` tells these pictures from
        others. Raises BadMetaInit."""
        return self._features(
            theta.source_encoder, "image", theta.source_dim, name, list(pixels_RPPC)
        )

    def texts(self, theta: MetaInit, name: str, texts: Sequence[str]) -> FloatArray:
        """Return features (R, E) of texts by θ's encoder; `name` tells these texts from others.
        Raises BadMetaInit."""
        return self._features(theta.target_encoder, "text", theta.target_dim, name, texts)

    def _features(
        self,
        spec: PartSpec | None,
        modality: Modality,
        dim: int,
        name: str,
        contents: Sequence[str] | Sequence[Pixels],
    ) -> FloatArray:
        key = (part_version(spec), name)
        if key not in self._known:
            encoder = encoder_from(spec, modality, dim, CPU)
            prepared = [encoder.prepare(c) if isinstance(c, str) else c for c in contents]
            self._known[key] = np.array(encoder.encode(prepared).numpy(), np.float32)
        return self._known[key]


def tenant_streams(
    concepts_N: IndexArray, x_ND: FloatArray, family: Family, dim: int, tenants: int
) -> list[RecordedStream]:
    """Make streams of tenants never trained on, each with a pair for every concept. All tenants
    have the same pictures."""
    labels, times_N = _labels(concepts_N), np.zeros(len(concepts_N), np.int64)
    return [
        RecordedStream(tenant_name(seed), x_ND, targets[concepts_N], times_N, labels)
        for seed in range(TENANT_SEED, TENANT_SEED + tenants)
        for targets in [Tenant(seed, family, dim).targets()]
    ]


def tenant_name(seed: int) -> str:
    """Return the name of a tenant's stream, which `tenant_seed` reads."""
    return f"tenant {seed}"


def tenant_seed(stream: str) -> int:
    """Return the seed of the tenant whose stream has this name."""
    return int(stream.removeprefix("tenant "))


def language_streams(
    cache: FeatureCache,
    theta: MetaInit,
    concepts_N: IndexArray,
    x_ND: FloatArray,
    languages: Sequence[str],
) -> list[RecordedStream]:
    """Make a stream per language: pictures and the language's names of them."""
    streams = []
    for language in languages:
        known = emoji_names.names_in(language)
        rows = [n for n, c in enumerate(concepts_N.tolist()) if c in known]
        called = concepts_N[rows]
        texts = [known[c].name for c in called.tolist()]
        y_NE = cache.texts(theta, f"{language} {_digest_of(called)}", texts)
        times_N = np.zeros(len(rows), np.int64)
        streams.append(RecordedStream(language, x_ND[rows], y_NE, times_N, _labels(called)))
    return streams


def space_streams(
    concepts_N: IndexArray, x_ND: FloatArray, languages: Sequence[str], dim: int
) -> list[RecordedStream]:
    """Make a stream per language: pictures, and vectors in the space that the language's names
    make."""
    spaces = read_spaces(languages, concepts_N.tolist(), dim)
    streams = []
    y_ZNE, known_ZN = spaces.y_ZYE.numpy(), spaces.known_ZY.numpy()
    for language, y_NE, known_N in zip(languages, y_ZNE, known_ZN, strict=True):
        called, times_N = concepts_N[known_N], np.zeros(int(known_N.sum()), np.int64)
        streams.append(
            RecordedStream(language, x_ND[known_N], y_NE[known_N], times_N, _labels(called))
        )
    return streams


def noisy(pixels_RPPC: Pixels, deviation: float, seed: int) -> Pixels:
    """Add normal noise to every pixel; `deviation` is a share of the range from black to white."""
    if not deviation:
        return pixels_RPPC
    noise = np.random.default_rng(seed).standard_normal(pixels_RPPC.shape) * 255.0 * deviation
    return np.clip(np.rint(pixels_RPPC + noise), 0, 255).astype(np.uint8)


def training_source(
    table: EmojiTable,
    theta: MetaInit,
    x_YRD: Tensor,
    names: NameFeatures | None,
    sizes: EpisodeSizes,
) -> EpisodeSource:
    """Return a source of episodes like the table's but of the training part, for baselines.

    `x_YRD` are features, by θ's encoder, of the training vendors' pictures of the training
    concepts. `names` are needed where streams are languages. Raises ValueError for a family of
    tenants that nothing is trained on.
    """
    pictures = Pictures(x_YRD)
    if names is not None:
        return LanguageEpisodes(pictures, names, sizes)
    if table.family not in ("low-rank", "rotation"):
        raise ValueError(f"no training tenants of the family {table.family!r}")
    u_YE = emoji.concept_vectors(theta.target_dim)[training_concepts()]
    return TenantEpisodes(pictures, torch.tensor(u_YE), table.family, sizes)


def training_names(cache: FeatureCache, theta: MetaInit, languages: Sequence[str]) -> NameFeatures:
    """Encode the languages' names of the training concepts, once for training and for judging."""
    concepts_Y = training_concepts()
    y_ZYE = torch.zeros(len(languages), len(concepts_Y), theta.target_dim)
    known_ZY = torch.zeros(y_ZYE.shape[:2], dtype=torch.bool)
    x_YD = np.zeros((len(concepts_Y), 1), np.float32)  # names alone are wanted
    streams = language_streams(cache, theta, concepts_Y, x_YD, languages)
    for row, stream in enumerate(streams):
        v = np.searchsorted(concepts_Y, [int(label) for label in stream.labels or ()])
        y_ZYE[row, v], known_ZY[row, v] = torch.from_numpy(stream.y_NE), True
    return NameFeatures(y_ZYE, known_ZY)


def training_concepts() -> IndexArray:
    """Return the concepts (Y) that `model.emoji.train_tenants.cache_features` has pictures of."""
    return emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")


def _labels(concepts_N: IndexArray) -> tuple[str, ...]:
    return tuple(map(str, concepts_N.tolist()))


def part_version(spec: PartSpec | None) -> str:
    """Return a sha256 (hex) that is the same for equal encoders."""
    digest = hashlib.sha256(canonical_json({} if spec is None else spec.config).encode())
    for name, tensor in sorted(({} if spec is None else spec.tensors).items()):
        digest.update(name.encode() + np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _digest_of(concepts_N: IndexArray) -> str:
    return hashlib.sha256(concepts_N.tobytes()).hexdigest()
