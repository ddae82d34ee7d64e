"""Shared features φ(x): a space that all streams have in common, and a closed form on top of it.

S = support pairs, R = rows (inputs), D = source dim, E = target dim

Where streams rotate their targets, a jointly trained mapping predicts the mean of the rotated
targets, and the mean of many rotations is nearly nothing. So here every stream in a batch may
rotate φ(x) on its own, see `model.meta.shared_features`.
"""

from dataclasses import dataclass

from model.baselines.fit import Fit, MapTo
from model.baselines.joint import JointMapping, JointRecipe, train_on_pairs
from model.meta.episodes import EpisodeSource
from model.meta.shared_features import rotated_loss
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
