"""Episodes of emoji: synthetic tenants' vectors, or languages' names, of augmented pictures.

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
from model.emoji.tenants import TrainingFamily, draw_matrices
from model.encoders.encoder import Encoder
from model.meta.cuts import Cut
from model.meta.episodes import EpisodeBatch


@dataclass(frozen=True, slots=True)
class Pictures:
    """What sources are drawn from: features of every picture of every concept."""

    x_VAD: Tensor
    noise: float = 0.4
    """Standard deviation of noise on features of unit size: a vendor not seen is encoded less
    well."""

    def draw(self, v_TN: Tensor, generator: torch.Generator) -> Tensor:
        """Features (T, N, D) of one noisy picture of each of these concepts, at its own norm."""
        a_TN = torch.randint(self.x_VAD.shape[1], v_TN.shape, generator=generator)
        x_TND = self.x_VAD[v_TN, a_TN]
        noise_TND = torch.randn(x_TND.shape, generator=generator)
        norm_TN1 = x_TND.norm(dim=2, keepdim=True)
        unit_TND: Tensor = functional.normalize(x_TND + self.noise * noise_TND, dim=2)
        return torch.mul(unit_TND, norm_TN1)


class TenantEpisodes:
    """New synthetic tenants of one family in every batch; an EpisodeSource."""

    def __init__(self, pictures: Pictures, u_VE: Tensor, family: TrainingFamily, cut: Cut) -> None:
        """`u_VE`: the concepts' vectors before a tenant's matrix."""
        self._pictures, self._u_VE = pictures, u_VE
        self._family, self._cut = family, cut

    @property
    def source_dim(self) -> int:
        """D."""
        return int(self._pictures.x_VAD.shape[2])

    @property
    def target_dim(self) -> int:
        """E."""
        return int(self._u_VE.shape[1])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """See EpisodeSource."""
        v_TN = _concepts(streams, len(self._u_VE), self._cut, generator)
        matrix_TEE = draw_matrices(self._family, streams, self.target_dim, generator)
        y_TNE = torch.bmm(self._u_VE[v_TN], matrix_TEE)
        known_TN = torch.ones_like(v_TN, dtype=torch.bool)
        return _batch(self._pictures.draw(v_TN, generator), y_TNE, known_TN, self._cut, generator)


class LanguageEpisodes:
    """Pictures and what a language calls them, as a text encoder reads it; an EpisodeSource."""

    def __init__(self, pictures: Pictures, names: "Names", cut: Cut) -> None:
        self._pictures, self._names, self._cut = pictures, names, cut

    @property
    def source_dim(self) -> int:
        """D."""
        return int(self._pictures.x_VAD.shape[2])

    @property
    def target_dim(self) -> int:
        """E."""
        return int(self._names.y_LVE.shape[2])

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """See EpisodeSource."""
        languages, concepts, _ = self._names.y_LVE.shape
        l_T = torch.randint(languages, (streams,), generator=generator)
        v_TN = _concepts(streams, concepts, self._cut, generator)
        y_TNE = self._names.y_LVE[l_T[:, None], v_TN]
        known_TN = self._names.known_LV[l_T[:, None], v_TN]
        return _batch(self._pictures.draw(v_TN, generator), y_TNE, known_TN, self._cut, generator)


@dataclass(frozen=True, slots=True)
class Names:
    """Features of names, by language and concept; zeros where a language has none."""

    y_LVE: Tensor
    known_LV: Tensor


def read_names(encoder: Encoder, languages: Sequence[str], concepts: Sequence[int]) -> Names:
    """Every language's names of the concepts, as the encoder reads them."""
    y_LVE = np.zeros((len(languages), len(concepts), encoder.dim), np.float32)
    known_LV = np.zeros(y_LVE.shape[:2], np.bool_)
    for row, language in enumerate(languages):
        names = emoji_names.names(language)
        known = [v for v, concept in enumerate(concepts) if concept in names]
        texts = [encoder.prepare(names[concepts[v]].name) for v in known]
        y_LVE[row, known] = encoder.encode(texts).cpu().numpy()
        known_LV[row, known] = True
    return Names(torch.from_numpy(y_LVE), torch.from_numpy(known_LV))


def _concepts(streams: int, concepts: int, cut: Cut, generator: torch.Generator) -> Tensor:
    """Different concepts (T, N) for each stream, enough for the longest support and the query."""
    order_TV = torch.rand(streams, concepts, generator=generator).argsort(1)
    return order_TV[:, : cut.max_support + cut.query]


def _batch(
    x_TND: Tensor, y_TNE: Tensor, known_TN: Tensor, cut: Cut, generator: torch.Generator
) -> EpisodeBatch:
    """The first pairs are the support's, log-uniform in number, the last ones the query's."""
    low, high = float(cut.min_support), cut.max_support + 1.0
    length_T = low * (high / low) ** torch.rand(len(x_TND), generator=generator)
    s = cut.max_support
    within_TS = torch.arange(s) < length_T.long()[:, None]
    return EpisodeBatch(
        x_TND[:, :s],
        y_TNE[:, :s],
        within_TS & known_TN[:, :s],
        x_TND[:, s:],
        y_TNE[:, s:],
        known_TN[:, s:],
    )
