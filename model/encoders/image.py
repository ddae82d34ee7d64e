"""The image encoder: a small CNN, 32 × 32 pixels to a feature vector of fixed length.

N = pictures, C = channels, P = pixels a side, D = features

Blocks of 3 × 3 convolution, bias and ReLU, with a 2 × 2 maximum after some; then a linear map,
and the features scaled to norm √D, so that every feature is of about unit size. Batch
normalisation exists in training only: `model.meta.train_encoder` folds it into the weights, so a
picture's features never depend on another picture.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.errors import BadMetaInit
from model.meta_init import EncoderSpec

KIND = "cnn/1"
BLOCKS = ((32, True), (64, True), (128, True), (192, False))
"""(channels, is there a maximum after it) of each block of the shipped encoder."""


class ImageEncoder:
    """The CNN's forward pass; its weights are fixed."""

    def __init__(self, spec: EncoderSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a CNN of this kind."""
        self._pools, self.side, self.dim = _read_config(spec.config)
        _check_shapes(spec, self._pools, self.side, self.dim)
        self._tensors = {n: torch.tensor(t, device=device) for n, t in spec.tensors.items()}

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
            return self._forward(h_NCPP)

    def _forward(self, h_NCPP: Tensor) -> Tensor:
        for i, pool in enumerate(self._pools):
            h_NCPP = functional.conv2d(
                h_NCPP, self._tensors[f"conv{i}.weight"], self._tensors[f"conv{i}.bias"], padding=1
            ).relu()
            h_NCPP = functional.max_pool2d(h_NCPP, 2) if pool else h_NCPP
        flat = h_NCPP.flatten(1)
        features_ND = flat @ self._tensors["linear.weight"].T + self._tensors["linear.bias"]
        return scaled(features_ND)


def normalised(pixels_NPPC: Tensor) -> Tensor:
    """uint8 or float pixels 0..255 (N, P, P, 3) -> float32 (N, 3, P, P), ink positive, paper 0."""
    return (1.0 - pixels_NPPC.to(torch.float32) / 255.0).permute(0, 3, 1, 2).contiguous()


def scaled(features_ND: Tensor) -> Tensor:
    """Each row at norm √D; an all-zero row stays zero."""
    norm_N1 = features_ND.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
    return features_ND / norm_N1 * float(np.sqrt(features_ND.shape[1]))


def config_of(blocks: tuple[tuple[int, bool], ...], side: int, dim: int) -> dict[str, Any]:
    """The `config` of an EncoderSpec of this kind."""
    return {
        "kind": KIND,
        "side": side,
        "dim": dim,
        "blocks": [[channels, pool] for channels, pool in blocks],
    }


def _read_config(config: Mapping[str, Any]) -> tuple[list[bool], int, int]:
    if config.get("kind") != KIND:
        raise BadMetaInit(f"encoder kind is {config.get('kind')!r}, not {KIND!r}")
    try:
        pools = [bool(pool) for _, pool in config["blocks"]]
        return pools, int(config["side"]), int(config["dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadMetaInit(f"encoder config is malformed: {error!r}") from error


def _check_shapes(spec: EncoderSpec, pools: list[bool], side: int, dim: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for i, (channels, _) in enumerate(spec.config["blocks"]):
        shapes[f"conv{i}.weight"] = (channels, before, 3, 3)
        shapes[f"conv{i}.bias"] = (channels,)
        before = channels
    flat = before * (side >> sum(pools)) ** 2
    shapes |= {"linear.weight": (dim, flat), "linear.bias": (dim,)}
    found = {name: tensor.shape for name, tensor in spec.tensors.items()}
    if found != shapes:
        raise BadMetaInit(f"encoder tensors have shapes {found}, its config asks for {shapes}")
