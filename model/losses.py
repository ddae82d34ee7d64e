"""The loss of the inner loop: mean squared error over pairs and target dimensions.

B = streams in batch, N = pairs (support or query, padded), E = target dim

    L = 1 / (n · E) · Σ_{i<n} Σ_{e<E} (o_ie − y_ie)²

with n the stream's number of real pairs; padded pairs count for nothing. The gradient with
respect to the outputs is therefore D = 2 · (o − y) / (n · E) on real pairs, 0 on padded ones.
"""

from torch import Tensor


def mean_squared_error(o_NE: Tensor, y_NE: Tensor) -> Tensor:
    """The loss of one stream without padding, a scalar tensor."""
    return (o_NE - y_NE).square().mean()


def masked_residual(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """o − y on real pairs and exactly 0 on padded ones, whatever stands there."""
    return (o_BNE - y_BNE).masked_fill(~real_BN.unsqueeze(2), 0.0)


def pair_weight(real_BN: Tensor, target_dim: int, like: Tensor) -> Tensor:
    """1 / (n · E) per stream (B); a stream without pairs gets 1 / E, so that its loss is 0."""
    n_B = real_BN.sum(1).clamp(min=1)
    return 1.0 / (n_B.to(like.dtype) * target_dim)


def masked_mean_squared_error(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """The loss of every stream (B); `real_BN` is true on real pairs."""
    residual_BNE = masked_residual(o_BNE, y_BNE, real_BN)
    weight_B = pair_weight(real_BN, y_BNE.shape[2], like=o_BNE)
    return residual_BNE.square().sum(dim=(1, 2)) * weight_B
