"""Training episodes of emoji: augmented pictures with synthetic tenants' vectors, or with names.

B = streams in batch, S = support pairs (padded), Q = query pairs, Y = candidates (concepts),
R = rows (pictures of a concept), Z = slots (languages), D = source dim, E = target dim, N = pairs
of a stream
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

    x_YRD: Tensor
    noise: float = 0.4
    """Standard deviation of the noise on features of unit size, which stands for a vendor not seen:
    it is encoded less well."""

    def draw(self, v_BN: Tensor, generator: torch.Generator) -> Tensor:
        """Return features (B, N, D) of one picture of each of these concepts, with noise but at the
        norm they had."""
        a_BN = torch.randint(self.x_YRD.shape[1], v_BN.shape, generator=generator)
        x_BND = self.x_YRD[v_BN, a_BN]
        noise_BND = torch.randn(x_BND.shape, generator=generator)
        norm_BN1 = x_BND.norm(dim=2, keepdim=True)
        unit_BND: Tensor = functional.normalize(x_BND + self.noise * noise_BND, dim=2)
        return torch.mul(unit_BND, norm_BN1)


class TenantEpisodes:
    """Draws new synthetic tenants of one family for every batch; an EpisodeSource."""

    def __init__(
        self, pictures: Pictures, u_YE: Tensor, family: TrainingFamily, sizes: EpisodeSizes
    ) -> None:
        """Draw pairs of `pictures` and of vectors `u_YE`, the concepts' before a tenant's
        matrix."""
        self._pictures, self._u_YE = pictures, u_YE
        self._family, self._sizes = family, sizes

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return int(self._pictures.x_YRD.shape[2])

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return int(self._u_YE.shape[1])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams; see EpisodeSource."""
        v_BN = _concepts(streams, len(self._u_YE), self._sizes, generator)
        matrix_BEE = draw_matrices(self._family, streams, self.target_dim, generator)
        y_BNE = torch.bmm(self._u_YE[v_BN], matrix_BEE)
        known_BN = torch.ones_like(v_BN, dtype=torch.bool)
        return _batch(self._pictures.draw(v_BN, generator), y_BNE, known_BN, self._sizes, generator)


class LanguageEpisodes:
    """Draws languages, whose pairs are pictures and features of their names; an EpisodeSource."""

    def __init__(self, pictures: Pictures, names: "NameFeatures", sizes: EpisodeSizes) -> None:
        self._pictures, self._names, self._sizes = pictures, names, sizes

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return int(self._pictures.x_YRD.shape[2])

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return int(self._names.y_ZYE.shape[2])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams; see EpisodeSource."""
        languages, concepts, _ = self._names.y_ZYE.shape
        l_B = torch.randint(languages, (streams,), generator=generator)
        v_BN = _concepts(streams, concepts, self._sizes, generator)
        y_BNE = self._names.y_ZYE[l_B[:, None], v_BN]
        known_BN = self._names.known_ZY[l_B[:, None], v_BN]
        return _batch(self._pictures.draw(v_BN, generator), y_BNE, known_BN, self._sizes, generator)


@dataclass(frozen=True, slots=True)
class NameFeatures:
    """Features of names, by language and concept; zeros where a language has none."""

    y_ZYE: Tensor
    known_ZY: Tensor


def read_names(encoder: Encoder, languages: Sequence[str], concepts: Sequence[int]) -> NameFeatures:
    """Encode every language's names of the concepts."""
    y_ZYE = np.zeros((len(languages), len(concepts), encoder.dim), np.float32)
    known_ZY = np.zeros(y_ZYE.shape[:2], np.bool_)
    for row, language in enumerate(languages):
        names = emoji_names.names_in(language)
        known = [v for v, concept in enumerate(concepts) if concept in names]
        texts = [encoder.prepare(names[concepts[v]].name) for v in known]
        y_ZYE[row, known] = encoder.encode(texts).cpu().numpy()
        known_ZY[row, known] = True
    return NameFeatures(torch.from_numpy(y_ZYE), torch.from_numpy(known_ZY))


def _concepts(
    streams: int, concepts: int, sizes: EpisodeSizes, generator: torch.Generator
) -> Tensor:
    """Draw different concepts (B, N) for each stream, enough for the longest support and the
    query."""
    order_BY = torch.rand(streams, concepts, generator=generator).argsort(1)
    return order_BY[:, : sizes.max_support + sizes.query]


def _batch(
    x_BND: Tensor, y_BNE: Tensor, known_BN: Tensor, sizes: EpisodeSizes, generator: torch.Generator
) -> EpisodeBatch:
    """Make episodes of pairs: the first ones are the support, log-uniform in number, the last ones
    the query."""
    low, high = float(sizes.min_support), sizes.max_support + 1.0
    length_B = low * (high / low) ** torch.rand(len(x_BND), generator=generator)
    s = sizes.max_support
    within_BS = torch.arange(s) < length_B.long()[:, None]
    return EpisodeBatch(
        x_BND[:, :s],
        y_BNE[:, :s],
        within_BS & known_BN[:, :s],
        x_BND[:, s:],
        y_BNE[:, s:],
        known_BN[:, s:],
    )
