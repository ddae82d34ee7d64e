"""The image encoder: a small CNN that says which known concepts a picture resembles.

R = rows (pictures), C = channels, P = pixels a side, I = inputs of a layer,
U = numbers of an embedding (of a key), Y = candidates (known concepts), X = source or target dim

A picture goes through four stages:

1. Blocks of 3 × 3 convolution, bias and ReLU; some end in 2 × 2 max pooling. A block with as many
   output as input channels adds its input to its output (He et al., arXiv:1512.03385).
2. A linear map from the last block's numbers to a key of U numbers, and the key to norm 1.
3. A soft lookup: attention of the key over a fixed memory, as in matching networks (Vinyals et al.,
   arXiv:1606.04080). The memory holds a key (U) and a value (X) for each of Y known concepts; the
   softmax over the inner products with the keys mixes the values. What no known concept explains
   is added by a second linear map from the key, named `direct`, at norm 1.
4. Scaling of the X features to norm √X, so that each is of about unit size.

The lookup is optional: without it the linear map of stage 2 gives the X features themselves.

There is no batch normalisation here: `model.emoji.train_pictures` folds it into the weights when
training ends, so a picture's features never depend on another picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.encoders.sequences import scaled
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.errors import BadMetaInit

KIND = "cnn/2"
BLOCKS = ((32, True), (64, True), (128, True), (192, False))
"""The blocks of the shipped encoder, as in ImageSizes."""
MAX_SIDE = 256
MAX_BLOCKS = 32
MAX_WIDTH = 65_536
"""The largest number of channels, of a key's numbers, of features and of known concepts. A config
is held to it before memory is taken."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """The sizes of an image encoder, as its config has them."""

    blocks: tuple[tuple[int, bool], ...]
    """Each block's output channels, and whether max pooling follows."""
    side: int
    dim: int
    lookup: tuple[int, int] | None
    """(Y, U) of the memory; None where there is no lookup."""

    @property
    def flat(self) -> int:
        """How many numbers a picture has after the last block."""
        return self.blocks[-1][0] * (self.side >> sum(pool for _, pool in self.blocks)) ** 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of every tensor of the encoder, by the tensor's name."""
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
    """Turns pixels into features; its weights are fixed."""

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a CNN of this kind."""
        self.sizes = _read_config(spec.config)
        found = {name: tensor.shape for name, tensor in spec.tensors.items()}
        if found != (shapes := self.sizes.shapes()):
            raise BadMetaInit(f"encoder tensors have shapes {found}, its config asks for {shapes}")
        # on a CPU convolutions with channels innermost take half the time
        self._layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        self._tensors = {n: self._laid_out(t, device) for n, t in spec.tensors.items()}

    @property
    def side(self) -> int:
        """The side of the pictures that it takes, in pixels (P)."""
        return self.sizes.side

    @property
    def dim(self) -> int:
        """How many features a picture has (X)."""
        return self.sizes.dim

    @torch.inference_mode()
    def encode(self, pixels_RPPC: Tensor) -> Tensor:
        """Returns the features (R, X), float32, of pictures (R, P, P, 3), uint8."""
        return self.encode_ink(normalised(pixels_RPPC))

    @torch.inference_mode()
    def encode_ink(self, h_RCPP: Tensor) -> Tensor:
        """Returns the features (R, X) of pictures (R, 3, P, P) as `normalised` returns them."""
        # the same kernel every time, in full float32: cudnn's choice would vary, and take TF32
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self.forward(h_RCPP)

    def forward(self, h_RCPP: Tensor) -> Tensor:
        """Returns what `encode_ink` does, without setting torch's modes, for torch.export."""
        h_RCPP = h_RCPP.contiguous(memory_format=self._layout)
        for i, (channels, pool) in enumerate(self.sizes.blocks):
            weight, bias = self._tensors[f"conv{i}.weight"], self._tensors[f"conv{i}.bias"]
            new_RCPP = functional.conv2d(h_RCPP, weight, bias, padding=1).relu_()
            h_RCPP = new_RCPP.add_(h_RCPP) if h_RCPP.shape[1] == channels else new_RCPP
            h_RCPP = functional.max_pool2d(h_RCPP, 2) if pool else h_RCPP
        key_RU = self._linear("linear", h_RCPP.flatten(1))
        return scaled(key_RU if self.sizes.lookup is None else self._looked_up(key_RU))

    def _laid_out(self, array: FloatArray, device: torch.device) -> Tensor:
        tensor = torch.tensor(array, device=device)
        return tensor.contiguous(memory_format=self._layout) if tensor.dim() == 4 else tensor

    def _looked_up(self, key_RU: Tensor) -> Tensor:
        key_RU = functional.normalize(key_RU, dim=1, eps=1e-6)
        resemblance_RY = (key_RU @ self._tensors["keys"].T).softmax(1)
        direct_RX = functional.normalize(self._linear("direct", key_RU), dim=1, eps=1e-6)
        return resemblance_RY @ self._tensors["values"] + direct_RX

    def _linear(self, name: str, h_RI: Tensor) -> Tensor:
        return h_RI @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]


def normalised(pixels_RPPC: Tensor) -> Tensor:
    """Returns pixels 0..255 (R, P, P, 3) as float32 (R, 3, P, P): white is 0, black is 1."""
    return (1.0 - pixels_RPPC.to(torch.float32) / 255.0).permute(0, 3, 1, 2).contiguous()


def config_of(
    blocks: tuple[tuple[int, bool], ...],
    side: int,
    dim: int,
    lookup: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Returns the config of a PartSpec of this kind; the arguments are ImageSizes' fields."""
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
    """Raises ValueError unless all sizes are integers in range, and a pixel remains."""
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
