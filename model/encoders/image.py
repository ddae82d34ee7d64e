"""The image encoder: a small CNN that says what a picture most resembles.

N = pictures, C = channels, P = pixels a side, K = key dims, V = known concepts, D = features

1. Blocks of 3 × 3 convolution, bias and ReLU, with a 2 × 2 maximum after some. A block with as many
   channels as the one before it adds its input to its output (He et al., arXiv:1512.03385).
2. A linear map to K numbers.
3. Optionally, of those numbers at norm 1, a soft lookup (attention over a fixed memory, as in
   matching networks, arXiv:1606.04080): a softmax over the V keys' inner products mixes their
   values, and a second linear map, the `direct` one, at norm 1, adds what no known concept
   explains. Without lookup the first map gives the features themselves.
4. Features scaled to norm √D, so that each is of about unit size.

Batch normalisation exists in training only: `model.emoji.train_pictures` folds it into the weights,
so a picture's features never depend on another picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.encoders.sequences import scaled
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

KIND = "cnn/2"
BLOCKS = ((32, True), (64, True), (128, True), (192, False))
"""(channels, is there a maximum after it) of each block of the shipped encoder."""
MAX_SIDE = 256
MAX_BLOCKS = 32
MAX_WIDTH = 65_536
"""Of channels, key dims, features and known concepts; sizes are judged before memory is taken."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The sizes of an image encoder, as its config has them."""

    blocks: tuple[tuple[int, bool], ...]
    side: int
    dim: int
    lookup: tuple[int, int] | None
    """(V, K), or None where features are the linear map's."""

    @property
    def flat(self) -> int:
        """Numbers of a picture after the last block."""
        return self.blocks[-1][0] * (self.side >> sum(pool for _, pool in self.blocks)) ** 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        shapes: dict[str, tuple[int, ...]] = {}
        before = 3
        for i, (channels, _) in enumerate(self.blocks):
            shapes |= {f"conv{i}.weight": (channels, before, 3, 3), f"conv{i}.bias": (channels,)}
            before = channels
        known, key_dim = self.lookup or (0, self.dim)
        shapes |= {"linear.weight": (key_dim, self.flat), "linear.bias": (key_dim,)}
        if self.lookup is not None:
            shapes |= {"keys": (known, key_dim), "values": (known, self.dim)}
            shapes |= {"direct.weight": (self.dim, key_dim), "direct.bias": (self.dim,)}
        return shapes


class ImageEncoder:
    """The CNN's forward pass; its weights are fixed."""

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a CNN of this kind."""
        self.sizes = _read_config(spec.config)
        found = {name: tensor.shape for name, tensor in spec.tensors.items()}
        if found != (shapes := self.sizes.shapes()):
            raise BadMetaInit(f"encoder tensors have shapes {found}, its config asks for {shapes}")
        self._tensors = {n: torch.tensor(t, device=device) for n, t in spec.tensors.items()}

    @property
    def side(self) -> int:
        """P."""
        return self.sizes.side

    @property
    def dim(self) -> int:
        """D."""
        return self.sizes.dim

    @torch.inference_mode()
    def encode(self, pixels_NPPC: Tensor) -> Tensor:
        """Features (N, D), float32, of uint8 pictures (N, P, P, 3)."""
        return self.encode_ink(normalised(pixels_NPPC))

    @torch.inference_mode()
    def encode_ink(self, h_NCPP: Tensor) -> Tensor:
        """Features (N, D) of normalised pictures."""
        # the same kernel every time, in full float32: cudnn's choice would vary, and take TF32
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.forward(h_NCPP)

    def forward(self, h_NCPP: Tensor) -> Tensor:
        """The same as plain tensor operations, for torch.export."""
        for i, (channels, pool) in enumerate(self.sizes.blocks):
            weight, bias = self._tensors[f"conv{i}.weight"], self._tensors[f"conv{i}.bias"]
            new_NCPP = functional.conv2d(h_NCPP, weight, bias, padding=1).relu_()
            h_NCPP = new_NCPP.add_(h_NCPP) if h_NCPP.shape[1] == channels else new_NCPP
            h_NCPP = functional.max_pool2d(h_NCPP, 2) if pool else h_NCPP
        key_NK = self._linear("linear", h_NCPP.flatten(1))
        return scaled(key_NK if self.sizes.lookup is None else self._looked_up(key_NK))

    def _looked_up(self, key_NK: Tensor) -> Tensor:
        key_NK = functional.normalize(key_NK, dim=1, eps=1e-6)
        resemblance_NV = (key_NK @ self._tensors["keys"].T).softmax(1)
        direct_ND = functional.normalize(self._linear("direct", key_NK), dim=1, eps=1e-6)
        return resemblance_NV @ self._tensors["values"] + direct_ND

    def _linear(self, name: str, h_NI: Tensor) -> Tensor:
        return h_NI @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]


def normalised(pixels_NPPC: Tensor) -> Tensor:
    """uint8 or float pixels 0..255 (N, P, P, 3) -> float32 (N, 3, P, P), ink positive, paper 0."""
    return (1.0 - pixels_NPPC.to(torch.float32) / 255.0).permute(0, 3, 1, 2).contiguous()


def config_of(
    blocks: tuple[tuple[int, bool], ...],
    side: int,
    dim: int,
    lookup: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The `config` of a PartSpec of this kind; `lookup` is (known concepts, key dims)."""
    return {
        "kind": KIND,
        "side": side,
        "dim": dim,
        "blocks": [[channels, pool] for channels, pool in blocks],
        "lookup": None if lookup is None else list(lookup),
    }


def _read_config(config: Mapping[str, Any]) -> ImageSizes:
    if config.get("kind") != KIND:
        raise BadMetaInit(f"encoder kind is {config.get('kind')!r}, not {KIND!r}")
    try:
        blocks = tuple((channels, pool) for channels, pool in config["blocks"])
        lookup = None if config["lookup"] is None else (config["lookup"][0], config["lookup"][1])
        sizes = ImageSizes(blocks, config["side"], config["dim"], lookup)
        _check_sizes(sizes)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadMetaInit(f"encoder config is malformed: {error!r}") from error
    return sizes


def _check_sizes(sizes: ImageSizes) -> None:
    """Raise ValueError unless all sizes are integers in range, and a pixel remains."""
    if not 1 <= len(sizes.blocks) <= MAX_BLOCKS:
        raise ValueError(f"{len(sizes.blocks)} blocks, not 1 to {MAX_BLOCKS}")
    if not all(isinstance(pool, bool) for _, pool in sizes.blocks):
        raise ValueError("a block is [channels, true or false]")
    widths = {"dim": sizes.dim, **{f"block {i}": c for i, (c, _) in enumerate(sizes.blocks)}}
    if sizes.lookup is not None:
        widths |= {"known concepts": sizes.lookup[0], "key dims": sizes.lookup[1]}
    for name, value, most in [(n, w, MAX_WIDTH) for n, w in widths.items()] + [
        ("side", sizes.side, MAX_SIDE)
    ]:
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{name} is {value!r}, not an integer in 1..{most}")
    if sizes.flat == 0:
        raise ValueError(f"no pixel of {sizes.side} a side is left after the blocks' maxima")
