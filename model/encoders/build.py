"""Builds the encoder that a θ asks for, and fresh ones with random weights to train from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from model.encoders import audio, image, text, vector, video
from model.encoders.audio import AudioEncoder, AudioNet, AudioSizes
from model.encoders.encoder import Encoder
from model.encoders.picture import PictureEncoder
from model.encoders.text import TextEncoder, TextNet, TextSizes
from model.encoders.trained_part import fresh_net
from model.encoders.vector import ProjectionEncoder, ProjectionNet, ProjectionSizes, VectorAsItIs
from model.encoders.video import VideoEncoder, VideoNet, VideoSizes
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

_ENCODERS: dict[Modality, Callable[[PartSpec, torch.device], Encoder]] = {
    "image": PictureEncoder,
    "text": TextEncoder,
    "audio": AudioEncoder,
    "video": VideoEncoder,
    "vector": ProjectionEncoder,
}


def encoder_from(
    spec: PartSpec | None, modality: Modality, dim: int, device: torch.device
) -> Encoder:
    """Returns the encoder of one side of θ; without a spec, vectors are taken as they are.

    Raises BadMetaInit when there is no spec and the modality is not vector, when the encoder is of
    another modality or dim, and when its tensors do not fit its config.
    """
    if spec is None:
        if modality != "vector":
            raise BadMetaInit(f"no encoder for {modality!r} contents in this meta-init")
        return VectorAsItIs(dim, device)
    encoder = _ENCODERS[modality](spec, device)
    if encoder.dim != dim:
        raise BadMetaInit(f"{spec.kind} gives {encoder.dim} features, not {dim}")
    return encoder


def fresh_encoder_spec(kind: str, dim: int, seed: int, **sizes: Any) -> PartSpec:
    """An untrained encoder of a kind, all of it given by the arguments.

    `sizes` are fields of the kind's sizes (TextSizes and its like); for pictures they are `side`,
    `blocks` and `lookup`, for videos also `frame`, the PartSpec of an image encoder (a fresh one by
    default). Raises BadMetaInit for an unknown kind.
    """
    if kind == text.KIND:
        text_sizes = TextSizes(dim=dim, **sizes)
        return fresh_net(lambda: TextNet(text_sizes), seed).spec()
    if kind == audio.KIND:
        audio_sizes = AudioSizes(dim=dim, **sizes)
        return fresh_net(lambda: AudioNet(audio_sizes), seed).spec()
    if kind == vector.KIND:
        projection_sizes = ProjectionSizes(dim=dim, **sizes)
        return fresh_net(lambda: ProjectionNet(projection_sizes), seed).spec()
    if kind == image.KIND:
        return _fresh_image(dim, seed, **sizes)
    if kind == video.KIND:
        return _fresh_video(dim, seed, **sizes)
    raise BadMetaInit(f"no encoder is of kind {kind!r}")


def _fresh_video(dim: int, seed: int, frame: PartSpec | None = None, **sizes: Any) -> PartSpec:
    video_sizes = VideoSizes(dim=dim, **sizes)
    inner = frame or _fresh_image(video_sizes.frame_dim, seed)
    return fresh_net(lambda: VideoNet(video_sizes), seed).spec(inner)


def _fresh_image(
    dim: int,
    seed: int,
    side: int = 32,
    blocks: tuple[tuple[int, bool], ...] = image.BLOCKS,
    lookup: tuple[int, int] | None = None,
) -> PartSpec:
    """Returns an image encoder with He-normal weights and zero biases."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in image.ImageSizes(blocks, side, dim, lookup).shapes().items():
        scale = 0.0 if name.endswith(".bias") else np.sqrt(2.0 / np.prod(shape[1:]))
        tensors[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
    return PartSpec(image.config_of(blocks, side, dim, lookup), tensors)
