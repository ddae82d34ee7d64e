"""Shared features φ(x): a space that all streams have in common, and a closed form on top of it.

B = streams in batch, N = pairs of a stream (padded), S = support pairs, R = rows (inputs),
D = source dim, E = target dim

Where streams rotate their targets, a jointly trained mapping predicts the mean of the rotated
targets, and the mean of many rotations is nearly nothing. So here every stream in a batch may
rotate φ(x) on its own: φ minimises Σ_t min_R |φ(X_t)·R − Y_t|² over orthogonal R, that is, it
learns the targets' space up to one rotation of all of it (generalised Procrustes analysis, Gower
1975). The best R is had in closed form, and, being the minimiser, it may be held fixed in φ's
gradient (variable projection, Golub & Pereyra 1973).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.baselines.fit import Fit, MapTo
from model.baselines.joint import JointMapping, JointRecipe, mean_loss, train_on_pairs
from model.meta.episodes import EpisodeSource
from model.values.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class OnSharedFeatures:
    """Another baseline on φ(x) instead of x: `OnSharedFeatures(phi, fit_ridge)`."""

    features: MapTo
    head: Fit

    def fit(self, x_SD: FloatArray, y_SE: FloatArray) -> MapTo:
        """Return x ↦ head(φ(x)), with the head fitted on φ of the support."""
        mapping = self.head(self.features(x_SD), y_SE)
        return lambda x_RD: mapping(self.features(x_RD))


@dataclass(frozen=True, slots=True)
class FirstDims:
    """φ(x) = the first columns of x: for encoders whose features already predict the targets' space
    as it is before a stream rotates it."""

    dims: int

    def __call__(self, x_RD: FloatArray) -> FloatArray:
        """Return features (R, dims)."""
        return x_RD[:, : self.dims]


def train_shared(source: EpisodeSource, recipe: JointRecipe, seed: int) -> JointMapping:
    """Train φ, with as many features as the targets have dims, on all streams together."""
    return train_on_pairs(source, recipe, seed, rotated_loss)


def rotated_loss(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """Return the mean squared error after each stream's best rotation of its outputs."""
    with torch.no_grad():
        weighted_BNE = o_BNE.masked_fill(~real_BN.unsqueeze(2), 0.0)
        u, _, vh = torch.linalg.svd(weighted_BNE.transpose(1, 2) @ y_BNE)
        rotation_BEE = u @ vh
    return mean_loss(o_BNE @ rotation_BEE, y_BNE, real_BN)
