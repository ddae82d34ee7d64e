"""Which of a stream's outputs have another pair's target nearer than their own, by products alone.

B = streams in batch, S = support pairs (padded)
"""

import torch
from torch import Tensor

TIE = 1e-4
"""A target is nearer by more than this share of the mean squared target: equal targets tie."""


def missed(onto_BSS: Tensor, squares_BS: Tensor, real_BS: Tensor) -> Tensor:
    """Returns 1 for each pair whose own target is not the nearest of the stream's, else 0 (B, S).

    `onto_BSS` are the products of pair s's output (rows) with all targets, `squares_BS` the
    squares of the targets. What is no number is a miss. Padding may hold anything.
    """
    real_B1S, n_B = real_BS.unsqueeze(1), real_BS.sum(1).clamp(min=1)
    # squared distances, less what all of a row have in common
    distance_BSS = squares_BS.unsqueeze(1) - 2.0 * onto_BSS
    tie_B = TIE * squares_BS.masked_fill(~real_BS, 0.0).sum(1) / n_B
    least_BS = distance_BSS.masked_fill(~real_B1S, torch.inf).amin(2) + tie_B.unsqueeze(1)
    own_BS = distance_BSS.diagonal(dim1=1, dim2=2)
    return (~(own_BS <= least_BS)).to(onto_BSS.dtype)
