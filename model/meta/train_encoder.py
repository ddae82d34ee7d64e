"""Trains the image encoder to say where a picture's concept lies in the universal embedding.

N = pictures in batch, P = pixels a side, C = channels, V = concepts of the split, U = features

A picture's features are compared with the universal vectors of all training concepts, over all
dims and over the first 32 (those that low-rank tenants rotate); the loss is the cross-entropy of
picking the right concept, plus a pull towards its vector. Augmentation stands in for vendors not
seen: shifts, scale, rotation by a few degrees, colour. No flips: left and right mean something.
"""

import itertools
import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.data import emoji
from model.encoders.image import BLOCKS, config_of, normalised, scaled
from model.meta.schedule import Schedule
from model.meta_init import EncoderSpec

log = logging.getLogger(__name__)

FEATURES = 64
NARROW = emoji.LOW_RANK_DIM
TRAIN_VENDORS = tuple(v for v in emoji.VENDORS if v != emoji.HELD_OUT_VENDOR)


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How the encoder is trained; the shipped one with these values."""

    steps: int = 1_900
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 0.05
    temperature: float = 0.1
    pull: float = 1.0


class TrainableEncoder(nn.Module):
    """The shipped CNN with batch normalisation, which `folded` takes away again."""

    def __init__(self) -> None:
        super().__init__()
        channels = [3, *(c for c, _ in BLOCKS)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in channels[1:])
        side = emoji.SIDE >> sum(pool for _, pool in BLOCKS)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(channels[-1] * side**2, FEATURES)

    def forward(self, h_NCPP: Tensor) -> Tensor:
        """Features (N, U) at norm √U of normalised pictures."""
        for conv, norm, (_, pool) in zip(self.convs, self.norms, BLOCKS, strict=True):
            h_NCPP = functional.relu(norm(conv(h_NCPP)))
            h_NCPP = functional.max_pool2d(h_NCPP, 2) if pool else h_NCPP
        return scaled(self.linear(self.dropout(h_NCPP.flatten(1))))

    def folded(self) -> EncoderSpec:
        """The same function without batch normalisation: its running statistics become weights."""
        tensors = {}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"conv{i}.weight"] = conv.weight * gain.view(-1, 1, 1, 1)
            tensors[f"conv{i}.bias"] = norm.bias - norm.running_mean * gain
        tensors |= {"linear.weight": self.linear.weight, "linear.bias": self.linear.bias}
        arrays = {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
        return EncoderSpec(config_of(BLOCKS, emoji.SIDE, FEATURES), arrays)


def train_encoder(recipe: EncoderRecipe, seed: int, minutes: float | None) -> EncoderSpec:
    """The encoder, trained on the training concepts as drawn by all but the held-out vendor."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pictures_NPPC, concept_N, vectors_VU = training_pictures()
    model = TrainableEncoder().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    schedule = Schedule(recipe.steps, minutes)
    while not schedule.finished:
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * schedule.rate_factor()
        pick_N = torch.randint(len(concept_N), (recipe.batch,), generator=generator)
        features_NU = model(augmented(normalised(pictures_NPPC[pick_N]), generator))
        loss = concept_loss(features_NU, vectors_VU, concept_N[pick_N], recipe)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.advance()
        if schedule.step % 100 == 0:
            log.info("encoder %s loss %.3f", schedule, loss.item())
    return model.eval().folded()


def training_pictures() -> tuple[Tensor, Tensor, Tensor]:
    """Drawings (N, P, P, 3), each one's place among the training concepts, and their vectors."""
    train_V = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")
    place = np.full(len(emoji.concepts()), -1)
    place[train_V] = np.arange(len(train_V))
    chosen = {vendor: emoji.drawn_by(vendor, "train") for vendor in TRAIN_VENDORS}
    pictures = np.concatenate([emoji.sheet(v)[indices] for v, indices in chosen.items()])
    concept_N = np.concatenate([place[indices] for indices in chosen.values()])
    vectors_VU: NDArray[np.float32] = emoji.concept_vectors(FEATURES)[train_V]
    return torch.from_numpy(pictures), torch.from_numpy(concept_N), torch.from_numpy(vectors_VU)


def concept_loss(
    features_NU: Tensor, vectors_VU: Tensor, concept_N: Tensor, recipe: EncoderRecipe
) -> Tensor:
    """Cross-entropy over concepts by cosine, in all and in the first dims, plus the distance."""
    loss = features_NU.new_zeros(())
    for dims in (FEATURES, NARROW):
        predicted_NU = functional.normalize(features_NU[:, :dims], dim=1)
        expected_VU = functional.normalize(vectors_VU[:, :dims], dim=1)
        cosine_NV = predicted_NU @ expected_VU.T
        loss = loss + functional.cross_entropy(cosine_NV / recipe.temperature, concept_N)
        loss = loss + recipe.pull * (1.0 - cosine_NV.gather(1, concept_N[:, None])).mean()
    return loss


def augmented(ink_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures as another vendor might draw them; `ink` is 0 on paper."""
    n = len(ink_NCPP)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    scale_N2 = uniform(0.85, 1.2, 1) * uniform(0.93, 1.07, 2)
    angle_N = uniform(-0.2, 0.2)
    cos, sin = torch.cos(angle_N), torch.sin(angle_N)
    shift_N2 = uniform(-0.14, 0.14, 2)
    row0 = torch.stack([cos * scale_N2[:, 0], -sin * scale_N2[:, 1], shift_N2[:, 0]], 1)
    row1 = torch.stack([sin * scale_N2[:, 0], cos * scale_N2[:, 1], shift_N2[:, 1]], 1)
    grid = functional.affine_grid(
        torch.stack([row0, row1], 1), list(ink_NCPP.shape), align_corners=False
    )
    ink_NCPP = functional.grid_sample(ink_NCPP, grid, align_corners=False)
    grey_NCPP = ink_NCPP.mean(1, keepdim=True)
    fade_N = uniform(-0.3, 1.0, 1, 1, 1).clamp(min=0.0) ** 2
    ink_NCPP = ink_NCPP * (1.0 - fade_N) + grey_NCPP * fade_N
    gain_NC = uniform(0.7, 1.3, 1, 1, 1) * uniform(0.75, 1.25, 3, 1, 1)
    return (ink_NCPP * gain_NC).clamp(0.0, 1.0).contiguous(memory_format=torch.channels_last)
