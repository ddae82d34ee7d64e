"""The image encoder of any side and dim, in the form in which it is trained: without a lookup, and
with batch normalisation, which `spec` folds away.

R = rows (pictures), C = channels, P = pixels a side, X = source or target dim
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.encoders.image import ImageEncoder, config_of
from model.encoders.sequences import scaled
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

WIDTHS = (32, 64, 128, 192)
"""Channels of the blocks; further ones have as many as the last."""
FRAME_WIDTHS = (16, 32, 64, 64)
"""Channels of the blocks for a video's frames, which are many."""
LEFT = 4
"""Pixels a side after the last max-pooling; up to twice as many where the side is no power of 2."""


def blocks_for(side: int, widths: tuple[int, ...] = WIDTHS) -> tuple[tuple[int, bool], ...]:
    """Return (channels, whether max-pooling follows) of each block, for pictures of that side."""
    halvings = max(1, (side // LEFT).bit_length() - 1)
    channels = [widths[min(i, len(widths) - 1)] for i in range(halvings + 1)]
    return tuple((c, i < halvings) for i, c in enumerate(channels))


class TrainableCnn(nn.Module):
    """Maps normalised pictures (R, 3, P, P) to features (R, X) of norm √X."""

    def __init__(self, spec: PartSpec) -> None:
        """Begin with a spec's weights. Raises BadMetaInit for a spec with a lookup."""
        super().__init__()
        self.sizes = ImageEncoder(spec, torch.device("cpu")).sizes
        if self.sizes.lookup is not None:
            raise BadMetaInit("an image encoder with a lookup is not trained end to end")
        channels = [3, *(c for c, _ in self.sizes.blocks)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in channels[1:])
        self.linear = nn.Linear(self.sizes.flat, self.sizes.dim)
        tensors = {name: torch.tensor(tensor) for name, tensor in spec.tensors.items()}
        begin = {n: t for n, t in tensors.items() if n.startswith("linear")}
        for i in range(len(self.convs)):
            begin[f"convs.{i}.weight"] = tensors[f"conv{i}.weight"]
            begin[f"norms.{i}.bias"] = tensors[f"conv{i}.bias"]
        self.load_state_dict(self.state_dict() | begin)

    def forward(self, h_RCPP: Tensor) -> Tensor:
        """Return features. In training mode they depend on the whole batch, through its
        statistics."""
        for conv, norm, (_, pool) in zip(self.convs, self.norms, self.sizes.blocks, strict=True):
            new_RCPP = functional.relu(norm(conv(h_RCPP)))
            h_RCPP = new_RCPP + h_RCPP if new_RCPP.shape[1] == h_RCPP.shape[1] else new_RCPP
            h_RCPP = functional.max_pool2d(h_RCPP, 2) if pool else h_RCPP
        return scaled(self.linear(h_RCPP.flatten(1)))

    def spec(self) -> PartSpec:
        """Return config and weights of the same function outside training, as files of θ hold
        it."""
        tensors = {"linear.weight": self.linear.weight, "linear.bias": self.linear.bias}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain_C = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"conv{i}.weight"] = conv.weight * gain_C.view(-1, 1, 1, 1)
            tensors[f"conv{i}.bias"] = norm.bias - norm.running_mean * gain_C
        arrays = {n: t.detach().numpy().astype(np.float32, copy=True) for n, t in tensors.items()}
        return PartSpec(config_of(self.sizes.blocks, self.sizes.side, self.sizes.dim), arrays)
