"""Joint training: one two-layer mapping for the pairs of all streams, as if they were one.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream
(padded), R = rows (inputs), D = source dim, H = hidden units, E = target dim

The streams' targets contradict each other where each has a space of its own; what the mapping
then learns is their mean. `model.baselines.fine_tuning` goes on from there on a stream's support,
and `model.baselines.shared` trains features that do not suffer from it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.baselines.fit import MapTo
from model.losses import masked_mean_squared_error
from model.mappings.mlp import Activation, Mlp, apply
from model.meta.episodes import EpisodeSource
from model.meta.shared_features import all_pairs
from model.values.arrays import FloatArray

PairsLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Outputs (B, N, E), targets (B, N, E) and which are real (B, N), to a scalar."""


@dataclass(frozen=True, slots=True)
class JointRecipe:
    """How a mapping is trained on all streams; enough of it for emoji tenants, in about 20 s."""

    steps: int = 2_000
    streams: int = 16
    """Streams in a mini-batch, each with all pairs of an episode."""
    hidden_dim: int = 128
    activation: Activation = "gelu"
    rate: float = 3e-3
    """Adam's learning rate at the start; it falls to 0 along half a cosine."""


@dataclass(frozen=True, slots=True)
class JointMapping:
    """A trained mapping, the same for every stream."""

    mlp: Mlp
    activation: Activation

    def __call__(self, x_RD: FloatArray) -> FloatArray:
        """Return outputs (R, E)."""
        with torch.inference_mode():
            outputs: FloatArray = apply(self.mlp, torch.tensor(x_RD), self.activation).numpy()
        return outputs

    def fit(self, x_SD: FloatArray, y_SE: FloatArray) -> MapTo:
        """Return the mapping itself: a support changes nothing."""
        return self


def train_joint(source: EpisodeSource, recipe: JointRecipe, seed: int) -> JointMapping:
    """Train one mapping on the mean squared error over the pairs of all streams."""
    return train_on_pairs(source, recipe, seed, mean_loss)


def train_on_pairs(
    source: EpisodeSource, recipe: JointRecipe, seed: int, loss: PairsLoss
) -> JointMapping:
    """Train one mapping by Adam on `loss` over the pairs of all streams.

    The same seed gives the same mapping.
    """
    generator = torch.Generator().manual_seed(seed)
    mlp = _start(source.source_dim, source.target_dim, recipe, generator)
    optimiser = torch.optim.Adam(list(mlp), lr=recipe.rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    for _ in range(recipe.steps):
        x_BND, y_BNE, real_BN = all_pairs(source.draw(generator, recipe.streams))
        optimiser.zero_grad()
        torch.autograd.backward(loss(apply(mlp, x_BND, recipe.activation), y_BNE, real_BN))
        optimiser.step()
        falling.step()
    return JointMapping(Mlp(*(tensor.detach() for tensor in mlp)), recipe.activation)


def mean_loss(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """Return the mean squared error of each stream, averaged over streams."""
    return masked_mean_squared_error(o_BNE, y_BNE, real_BN).mean()


def _start(
    source_dim: int, target_dim: int, recipe: JointRecipe, generator: torch.Generator
) -> Mlp:
    hidden = recipe.hidden_dim
    w1_HD = torch.randn(hidden, source_dim, generator=generator) / source_dim**0.5
    w2_EH = torch.randn(target_dim, hidden, generator=generator) / hidden**0.5
    start = (w1_HD, torch.zeros(hidden), w2_EH, torch.zeros(target_dim))
    return Mlp(*(tensor.requires_grad_() for tensor in start))
