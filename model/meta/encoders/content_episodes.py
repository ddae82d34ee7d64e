"""Episodes of features, made of episodes of contents' numbers by the nets in training.

T = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = contents,
D = source dim, E = target dim
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from model.meta.encoders.content_store import ContentStore
from model.meta.encoders.trainable import Pass, Trainable
from model.meta.episodes import EpisodeBatch
from model.meta.streams import RecordedEpisodes


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents by number, and episodes of their numbers."""

    source: ContentStore
    target: ContentStore
    train: RecordedEpisodes
    validation: RecordedEpisodes | None = None
    """None: all steps are done, and the last nets are the result."""


def episodes_of_features(
    contents: Contents, numbers: EpisodeBatch, source: Trainable | float, target: Trainable | float
) -> tuple[EpisodeBatch, list[Pass]]:
    """Episodes, and the ways back into the nets. A side without a net has vectors for contents,
    and a number that they are divided by."""
    real = torch.cat([numbers.real_support_TS, numbers.real_query_TQ], 1)
    x_TND, back = _features(
        contents.source, [numbers.x_support_TSD, numbers.x_query_TQD], real, source
    )
    y_TNE, too = _features(
        contents.target, [numbers.y_support_TSE, numbers.y_query_TQE], real, target
    )
    s = numbers.real_support_TS.shape[1]
    x_parts, y_parts = (x_TND[:, :s], x_TND[:, s:]), (y_TNE[:, :s], y_TNE[:, s:])
    batch = EpisodeBatch(x_parts[0], y_parts[0], real[:, :s], x_parts[1], y_parts[1], real[:, s:])
    return batch, [*back, *too]


def same_targets(numbers: EpisodeBatch) -> Tensor:
    """Which of a stream's queries have targets of the same content (T, Q, Q)."""
    number_TQ1 = numbers.y_query_TQE
    return number_TQ1 == number_TQ1.mT


def _features(
    store: ContentStore, number_TN1: list[Tensor], real_TN: Tensor, net: Trainable | float
) -> tuple[Tensor, list[Pass]]:
    """Of a side's support and query (T, S + Q, D); a content goes through the net once, however
    often it occurs."""
    number_TN = torch.cat(number_TN1, 1).squeeze(2).long()
    # padding stands for some content of the batch, so that it costs nothing and is finite
    number_TN = number_TN.where(real_TN, number_TN[real_TN][0])
    number_N, place_TN = cast(tuple[Tensor, Tensor], torch.unique(number_TN, return_inverse=True))
    found = store.take(number_N)
    if isinstance(net, Trainable):
        back = Pass(net, found)
        return back.features_ND[place_TN], [back]
    return torch.from_numpy(np.stack(found))[place_TN] / net, []
