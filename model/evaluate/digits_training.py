"""A θ that was meta-trained on streams of digits: the head with a learned prior covariance.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, Y = candidates (the
ten classes), D = source dim (64 pixels), E = target dim

Streams are those of `model.evaluate.digits`: the classes' vectors are the same for all, each
stream's rotation is its own. A stream is trained on in its own units, as it is served.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.inner.learner import Support
from model.inner.units import frame_of, in_frame
from model.meta.episodes import EpisodeBatch, EpisodeSizes
from model.meta.recipe import Recipe
from model.meta.training import Data, facts_of, train_theta
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray

RECIPE = Recipe(learner="alpaca", hidden_dim=256, query=32, rate=3e-3)


class DigitsEpisodes:
    """Draws streams with new rotations for every batch; an EpisodeSource."""

    def __init__(
        self,
        x_ND: FloatArray,
        digit_N: NDArray[np.int64],
        class_YE: FloatArray,
        noise: float,
        sizes: EpisodeSizes,
    ) -> None:
        """Draw pairs of these pictures and their classes' vectors."""
        self._x_ND, self._digit_N = torch.from_numpy(x_ND), torch.from_numpy(digit_N)
        self._class_YE = torch.from_numpy(class_YE)
        self._noise, self._sizes = noise, sizes

    @property
    def source_dim(self) -> int:
        """Number of source features, D."""
        return self._x_ND.shape[1]

    @property
    def target_dim(self) -> int:
        """Number of target features, E."""
        return self._class_YE.shape[1]

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        """Draw one episode of each of `streams` streams; see EpisodeSource."""
        low, s = float(self._sizes.min_support), self._sizes.max_support
        order_BN = torch.rand(streams, len(self._x_ND), generator=generator).argsort(1)
        n_BN = order_BN[:, : s + self._sizes.query]
        dim = self.target_dim
        rotation_BEE = torch.linalg.qr(torch.randn(streams, dim, dim, generator=generator))[0]
        y_BNE = torch.bmm(self._class_YE[self._digit_N[n_BN]], rotation_BEE)
        y_BNE = y_BNE + self._noise * torch.randn(y_BNE.shape, generator=generator)
        length_B = low * ((s + 1.0) / low) ** torch.rand(streams, generator=generator)
        real_BS = torch.arange(s) < length_B.long()[:, None]
        return _in_units(self._x_ND[n_BN], y_BNE, real_BS)


def _in_units(x_BND: Tensor, y_BNE: Tensor, real_BS: Tensor) -> EpisodeBatch:
    """Cut after the support, all of it in the support's units."""
    s, n = real_BS.shape[1], x_BND.shape[1]
    frame = frame_of(Support(x_BND[:, :s], y_BNE[:, :s], real_BS), standardise=False)
    every_BN = functional.pad(real_BS, (0, n - s), value=True)
    x_BND, y_BNE, _ = in_frame(Support(x_BND, y_BNE, every_BN), frame)
    return EpisodeBatch(x_BND[:, :s], y_BNE[:, :s], real_BS, x_BND[:, s:], y_BNE[:, s:],
                        every_BN[:, s:])  # fmt: skip


def trained_on_digits(source: DigitsEpisodes, steps: int, seed: int) -> MetaInit:
    """Meta-train a θ on these streams."""
    recipe = Recipe.from_config(RECIPE.to_config() | {"steps": steps, "seed": seed})
    trained = train_theta(Data(source), recipe, form="full")
    return trained.parameters.meta_init("digits-alpaca", facts=facts_of(trained))
