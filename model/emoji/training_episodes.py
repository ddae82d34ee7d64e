"""Training episodes of emoji: augmented pictures with synthetic tenants' vectors, or with names.

T = streams in batch, S = support pairs (padded), Q = query pairs, V = concepts, A = pictures of a
concept, L = languages, D = source dim, E = target dim
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.emoji import names as emoji_names
from model.emoji.tenant_training import TrainingFamily, draw_matrices
from model.encoders.encoder import Encoder
from model.meta.episodes import EpisodeBatch, EpisodeSizes


@dataclass(frozen=True, slots=True)
class Pictures:
    """Features of every picture of every concept, from which episodes' sources are drawn."""

    x_VAD: Tensor
    noise: float = 0.4
    """Standard deviation of the noise on features of unit size, which stands for a vendor not seen:
    it is encoded less well."""

    def draw(self, v_TN: Tensor, generator: torch.Generator) -> Tensor:
        """Return features (T, N, D) of one picture of each of these concepts, with noise but at the
        norm they had."""
        a_TN = torch.randint(self.x_VAD.shape[1], v_TN.shape, generator=generator)
        x_TND = self.x_VAD[v_TN, a_TN]
        noise_TND = torch.randn(x_TND.shape, generator=generator)
        norm_TN1 = x_TND.norm(dim=2, keepdim=True)
        unit_TND: Tensor = functional.normalize(x_TND + self.noise * noise_TND, dim=2)
        return torch.mul(unit_TND, norm_TN1)


class TenantEpisodes:
    """Draws new synthetic tenants of one family for every batch; an EpisodeSource."""

    def __init__(
        self, pictures: Pictures, u_VE: Tensor, family: TrainingFamily, sizes: EpisodeSizes
    ) -> None:
        """Draw pairs of `pictures` and of vectors `u_VE`, the concepts' before a tenant's
        matrix."""
        self._pictures, self._u_VE = pictures, u_VE
        self._family, self._sizes = family, sizes

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return int(self._pictures.x_VAD.shape[2])

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return int(self._u_VE.shape[1])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams; see EpisodeSource."""
        v_TN = _concepts(streams, len(self._u_VE), self._sizes, generator)
        matrix_TEE = draw_matrices(self._family, streams, self.target_dim, generator)
        y_TNE = torch.bmm(self._u_VE[v_TN], matrix_TEE)
        known_TN = torch.ones_like(v_TN, dtype=torch.bool)
        return _batch(self._pictures.draw(v_TN, generator), y_TNE, known_TN, self._sizes, generator)


class LanguageEpisodes:
    """Draws languages, whose pairs are pictures and features of their names; an EpisodeSource."""

    def __init__(self, pictures: Pictures, names: "NameFeatures", sizes: EpisodeSizes) -> None:
        self._pictures, self._names, self._sizes = pictures, names, sizes

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return int(self._pictures.x_VAD.shape[2])

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return int(self._names.y_LVE.shape[2])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams; see EpisodeSource."""
        languages, concepts, _ = self._names.y_LVE.shape
        l_T = torch.randint(languages, (streams,), generator=generator)
        v_TN = _concepts(streams, concepts, self._sizes, generator)
        y_TNE = self._names.y_LVE[l_T[:, None], v_TN]
        known_TN = self._names.known_LV[l_T[:, None], v_TN]
        return _batch(self._pictures.draw(v_TN, generator), y_TNE, known_TN, self._sizes, generator)


@dataclass(frozen=True, slots=True)
class NameFeatures:
    """Features of names, by language and concept; zeros where a language has none."""

    y_LVE: Tensor
    known_LV: Tensor


def read_names(encoder: Encoder, languages: Sequence[str], concepts: Sequence[int]) -> NameFeatures:
    """Encode every language's names of the concepts."""
    y_LVE = np.zeros((len(languages), len(concepts), encoder.dim), np.float32)
    known_LV = np.zeros(y_LVE.shape[:2], np.bool_)
    for row, language in enumerate(languages):
        names = emoji_names.names_in(language)
        known = [v for v, concept in enumerate(concepts) if concept in names]
        texts = [encoder.prepare(names[concepts[v]].name) for v in known]
        y_LVE[row, known] = encoder.encode(texts).cpu().numpy()
        known_LV[row, known] = True
    return NameFeatures(torch.from_numpy(y_LVE), torch.from_numpy(known_LV))


def _concepts(
    streams: int, concepts: int, sizes: EpisodeSizes, generator: torch.Generator
) -> Tensor:
    """Draw different concepts (T, N) for each stream, enough for the longest support and the
    query."""
    order_TV = torch.rand(streams, concepts, generator=generator).argsort(1)
    return order_TV[:, : sizes.max_support + sizes.query]


def _batch(
    x_TND: Tensor, y_TNE: Tensor, known_TN: Tensor, sizes: EpisodeSizes, generator: torch.Generator
) -> EpisodeBatch:
    """Make episodes of pairs: the first ones are the support, log-uniform in number, the last ones
    the query."""
    low, high = float(sizes.min_support), sizes.max_support + 1.0
    length_T = low * (high / low) ** torch.rand(len(x_TND), generator=generator)
    s = sizes.max_support
    within_TS = torch.arange(s) < length_T.long()[:, None]
    return EpisodeBatch(
        x_TND[:, :s],
        y_TNE[:, :s],
        within_TS & known_TN[:, :s],
        x_TND[:, s:],
        y_TNE[:, s:],
        known_TN[:, s:],
    )
