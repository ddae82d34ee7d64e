"""The vector encoders: a vector as it is, or through a learned projection.

R = rows (vectors), I = inputs of a layer (a vector's numbers), X = source or target dim
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, scaled
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.encoders.vector_check import check_vector
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content

KIND = "projection/1"
ROWS = {"cpu": 16, "cuda": 256}
"""Vectors in a chunk, by device."""


class VectorAsItIs:
    """Takes a vector's own numbers as its features."""

    modality: Modality = "vector"

    def __init__(self, dim: int, device: torch.device) -> None:
        self.dim = dim
        self._device = device

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns the vector (X), float32; raises what `check_vector` raises."""
        return check_vector(content, self.dim, "a")

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns the vectors as one tensor (R, X)."""
        if not prepared:
            return torch.zeros((0, self.dim), device=self._device)
        return torch.from_numpy(np.stack(prepared)).to(self._device)


@dataclass(frozen=True, slots=True)
class ProjectionSizes:
    """All that decides the shape of the projection."""

    dim: int = size(1, 65_536, 64)
    input_dim: int = size(1, 65_536, 64)
    normalise: int = size(0, 1, 0)
    """1 when features are scaled to norm √X, 0 when not."""


class ProjectionNet(nn.Module):
    """Turns vectors into features W·x + b, scaled to norm √X where the sizes say so."""

    def __init__(self, sizes: ProjectionSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.linear = RowwiseLinear(sizes.input_dim, sizes.dim)

    def forward(self, x_RI: Tensor) -> Tensor:
        """Returns the features (R, X) of vectors (R, I)."""
        features_RX: Tensor = self.linear(x_RI)
        return scaled(features_RX) if self.sizes.normalise else features_RX

    def spec(self) -> PartSpec:
        """Returns config and weights, as θ files hold them."""
        return spec_of(KIND, self.sizes, self)


class ProjectionEncoder:
    """Turns vectors of another dim into features; its weights are fixed."""

    modality: Modality = "vector"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a projection."""
        sizes = read_sizes(ProjectionSizes, KIND, spec.config)
        self.net = read_net(lambda: ProjectionNet(sizes), spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """How many features a vector has (X)."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns the vector (I), float32; raises what `check_vector` raises."""
        return check_vector(content, self.net.sizes.input_dim, "a")

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns features (R, X); each row depends on its own vector alone, to the bit."""
        rows, length = ROWS[self._device.type], self.net.sizes.input_dim
        return in_chunks(self._forward, prepared, self.dim, rows, length, self._device)

    def _forward(self, x_RI: Tensor, _length_R: Tensor) -> Tensor:
        features: Tensor = self.net(x_RI)
        return features
