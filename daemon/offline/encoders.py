"""Which encoders a training on recorded events uses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from daemon.errors import Misconfigured
from daemon.offline.dataset import RawPair
from model.encoders import audio, image, text, vector, video
from model.encoders.build import encoder_from, fresh_encoder_spec
from model.encoders.encoder import Encoder
from model.encoders.video import VideoSizes
from model.meta.encoders.trainable_cnn import FRAME_WIDTHS, blocks_for
from model.theta.meta_init import Modality
from model.theta.meta_init_file import shipped
from model.theta.part import PartSpec
from model.theta.part_file import load_encoder
from model.values.errors import BadMetaInit

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a θ to be trained."""

    modality: Modality
    dim: int
    spec: PartSpec | None
    to_train: bool = False
    """Whether the encoder's weights are still random."""
    trained: bool = False
    """Whether they were trained on these streams."""

    @property
    def encoder(self) -> Encoder:
        """On a CPU."""
        return encoder_from(self.spec, self.modality, self.dim, CPU)

    def trained_as(self, spec: PartSpec) -> Side:
        """The side with the encoder that was trained for it."""
        return replace(self, spec=spec, to_train=False, trained=True)


TRAIN = "train"
"""Instead of a θ's file: train an encoder on these streams."""


@dataclass(frozen=True, slots=True)
class FreshSizes:
    """Of encoders that are to be trained."""

    dim: int = 64
    picture_side: int = 32
    """Pixels of a picture or a frame, to which all are brought; 8 to 256."""
    text_chars: int = 128
    """Longer texts are cut there."""
    seed: int = 0


def sides(
    first: RawPair, source: str | None, target: str | None, fresh: FreshSizes
) -> tuple[Side, Side]:
    """Source and target as the first pair has them, with the encoders that were asked for: a θ's
    file, "train", "none" for vectors as they are, or None for what fits. Raises Misconfigured."""
    return (
        _side("source", *first.source, source, fresh),
        _side("target", *first.target, target, fresh),
    )


def _side(name: str, modality: str, content: object, wanted: str | None, fresh: FreshSizes) -> Side:
    known = next((m for m in get_args(Modality) if m == modality), None)
    if known is None:
        raise Misconfigured(f"{name} modality {modality!r} is not known")
    if wanted == "none" or (wanted is None and known == "vector"):
        if not isinstance(content, np.ndarray):
            raise Misconfigured(f"--{name}-encoder none: {modality} contents need an encoder")
        return Side(known, content.shape[0], None)
    if wanted == TRAIN:
        return Side(known, fresh.dim, _fresh(known, content, fresh), to_train=True)
    spec = _shipped(name, known) if wanted is None else _from_file(name, known, Path(wanted))
    return Side(known, int(spec.config["dim"]), spec)


def _fresh(modality: Modality, content: object, fresh: FreshSizes) -> PartSpec:
    side, seed = fresh.picture_side, fresh.seed
    if modality == "text":
        return fresh_encoder_spec(text.KIND, fresh.dim, seed, max_chars=fresh.text_chars)
    if modality == "audio":
        return fresh_encoder_spec(audio.KIND, fresh.dim, seed)
    if modality == "image":
        return fresh_encoder_spec(image.KIND, fresh.dim, seed, side=side, blocks=blocks_for(side))
    if modality == "video":
        blocks = blocks_for(side, FRAME_WIDTHS)
        frame_dim = VideoSizes().frame_dim
        frame = fresh_encoder_spec(image.KIND, frame_dim, seed, side=side, blocks=blocks)
        return fresh_encoder_spec(video.KIND, fresh.dim, seed, frame=frame)
    assert isinstance(content, np.ndarray)
    return fresh_encoder_spec(vector.KIND, fresh.dim, seed, input_dim=content.shape[0], normalise=1)


SHIPPED: dict[Modality, str] = {"image": "emoji-lowrank", "text": "emoji-names"}
"""θs that ship with adaptd and have an encoder of the modality."""


def _shipped(name: str, modality: Modality) -> PartSpec:
    if modality not in SHIPPED:
        raise Misconfigured(
            f"no {modality} encoder ships with adaptd: name a θ that has one with "
            f"--{name}-encoder, or train one: --{name}-encoder {TRAIN}"
        )
    return load_encoder(shipped(SHIPPED[modality]), modality)


def _from_file(name: str, modality: Modality, path: Path) -> PartSpec:
    try:
        return load_encoder(path, modality)
    except BadMetaInit as e:
        raise Misconfigured(f"--{name}-encoder: {e}") from e
