"""What the outer loop learns from: batches of episodes, whoever draws them.

T = streams in batch, S = support pairs (padded), Q = query pairs (padded), D = source dim,
E = target dim
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class EpisodeBatch(NamedTuple):
    """Episodes of T streams. `real_*` is true on real pairs; padded pairs hold finite numbers and
    count for nothing."""

    x_support_TSD: Tensor
    y_support_TSE: Tensor
    real_support_TS: Tensor
    x_query_TQD: Tensor
    y_query_TQE: Tensor
    real_query_TQ: Tensor


class EpisodeSource(Protocol):
    """Draws episodes; the same generator state gives the same batch."""

    @property
    def source_dim(self) -> int:
        """D."""

    @property
    def target_dim(self) -> int:
        """E."""

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Episodes of `streams` streams, support and query disjoint (in concepts, if labelled)."""
