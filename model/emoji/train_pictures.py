"""Trains the image encoder to map a picture to its concept's place in the universal embedding.

R = rows (pictures), P = pixels a side, C = channels, Y = candidates (concepts of the split; in
`choices_RY`, drawings), U = numbers of an embedding (of the text or of a key)

Two heads share the network. One learns a free key for every training concept, so that concepts
whose vectors lie close are still told apart; the encoder then gives the mean of the concepts'
vectors by how well their keys match. The other maps straight into the embedding, by cosine in all
and in the first dims (those that tenants rotate), and serves concepts never seen. Augmentation, and
mixing two vendors' drawings of a concept, stand in for vendors not seen.

    python -m model.emoji.train_pictures --out FILE        (ten minutes of one core)
"""

import argparse
import itertools
import logging
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.emoji import drawings as emoji
from model.emoji.augment import mixed, redrawn
from model.emoji.tenants import LOW_RANK_DIM, ROTATION_DIM
from model.encoders.image import BLOCKS, config_of, normalised
from model.encoders.sequences import scaled
from model.meta.loop import run
from model.meta.progress import TrainingSchedule
from model.meta.progress_lines import lines_of
from model.meta.state import TrainingState
from model.theta.part import PartSpec
from model.theta.part_file import save_part

log = logging.getLogger(__name__)

FEATURES = 64
KEY_DIM = 128
JUDGED_DIMS = ((64, 0.1), (LOW_RANK_DIM, 0.06), (ROTATION_DIM, 0.03))
"""(leading dims, temperature) in which the direct head is judged."""
TRAIN_VENDORS = tuple(v for v in emoji.VENDORS if v != emoji.HELD_OUT_VENDOR)


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How the image encoder is trained; the shipped one was trained with these values."""

    steps: int = 5_000
    batch: int = 128
    rate: float = 3e-3
    weight_decay: float = 0.05
    threads: int = 1
    """Threads of torch while it trains: sums, and so the last bits, depend on them."""
    mix: float = 0.4
    """The share of pictures mixed with another vendor's drawing of the same concept."""
    kinship: float = 0.2
    """The share of a picture's label spread over concepts of like meaning."""
    direct: float = 0.5
    """The weight of the direct head's loss."""
    sharpness: float = 3.0
    """The trained keys are multiplied by it: chosen on a vendor left out of training."""
    trust: float = 0.1
    """The direct head's part in the features, beside the lookup's: chosen in the same way."""


class TrainableEncoder(nn.Module):
    """The shipped CNN with batch normalisation, which `folded` turns into weights."""

    def __init__(self, known: int = 796) -> None:
        super().__init__()
        channels = [3, *(c for c, _ in BLOCKS)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in channels[1:])
        side = emoji.SIDE >> sum(pool for _, pool in BLOCKS)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(channels[-1] * side**2, KEY_DIM)
        self.linear_norm = nn.BatchNorm1d(KEY_DIM)
        self.keys_YU = nn.Parameter(0.1 * torch.randn(known, KEY_DIM))
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.direct = nn.Linear(KEY_DIM, FEATURES)

    def forward(self, ink_RCPP: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of how well each key matches (R, Y), and the direct head's output (R,
        U)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and fast_bfloat16()):
            h_RCPP = self.convolved(ink_RCPP)
        key_RU = self.linear_norm(self.linear(self.dropout(h_RCPP.float().flatten(1))))
        key_RU = functional.normalize(key_RU, dim=1, eps=1e-6)
        return key_RU @ self.scaled_keys().T, self.direct(key_RU)

    def convolved(self, h_RCPP: Tensor) -> Tensor:
        """Return the last block's output."""
        for conv, norm, (_, pool) in zip(self.convs, self.norms, BLOCKS, strict=True):
            new_RCPP = functional.relu(norm(conv(h_RCPP)))
            h_RCPP = new_RCPP + h_RCPP if new_RCPP.shape == h_RCPP.shape else new_RCPP
            h_RCPP = functional.max_pool2d(h_RCPP, 2) if pool else h_RCPP
        return h_RCPP

    def scaled_keys(self) -> Tensor:
        """Return the keys (Y, U), all at the one learned norm."""
        return self.log_scale.exp() * functional.normalize(self.keys_YU, dim=1)

    def features(self, ink_RCPP: Tensor, vectors_YU: Tensor, recipe: EncoderRecipe) -> Tensor:
        """Return the encoder's features (R, U), computed in the slow obvious way."""
        match_RY, direct_RU = self(ink_RCPP)
        unit_YU = functional.normalize(vectors_YU, dim=1)
        looked_up_RU = (recipe.sharpness * match_RY).softmax(1) @ unit_YU
        return scaled(looked_up_RU + recipe.trust * functional.normalize(direct_RU, dim=1))

    def folded(self, vectors_YU: Tensor, recipe: EncoderRecipe) -> PartSpec:
        """Return the same function without batch normalisation, whose running statistics become
        weights."""
        tensors = {}
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            gain_C, bias_C = _as_weights(norm)
            tensors[f"conv{i}.weight"] = conv.weight * gain_C.view(-1, 1, 1, 1)
            tensors[f"conv{i}.bias"] = bias_C
        gain_U, bias_U = _as_weights(self.linear_norm)
        tensors["linear.weight"] = self.linear.weight * gain_U[:, None]
        tensors["linear.bias"] = self.linear.bias * gain_U + bias_U
        tensors["keys"] = recipe.sharpness * self.scaled_keys()
        tensors["values"] = functional.normalize(vectors_YU, dim=1) / recipe.trust
        tensors |= {"direct.weight": self.direct.weight, "direct.bias": self.direct.bias}
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
        lookup = (len(self.keys_YU), KEY_DIM)
        config = config_of(BLOCKS, emoji.SIDE, FEATURES, lookup)
        return PartSpec(config, {name: array.copy() for name, array in arrays.items()})


def fast_bfloat16() -> bool:
    """Return whether this CPU convolves in bfloat16 (AVX512-BF16 or AMX), which takes half the
    time."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def train_encoder(recipe: EncoderRecipe, seed: int, minutes: float | None) -> PartSpec:
    """Train the image encoder on the training concepts as drawn by all but the held-out vendor.

    Without a time limit the same recipe and seed give the same bytes on the same machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            return _trained(recipe, seed, minutes)
    finally:
        torch.set_num_threads(threads)


def _trained(recipe: EncoderRecipe, seed: int, minutes: float | None) -> PartSpec:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pictures_RPPC, concept_R, vectors_YU = training_pictures()
    ink_RCPP, drawings_YR = normalised(pictures_RPPC), drawings_of(concept_R)
    label_YY = labels(vectors_YU, recipe.kinship)
    model = TrainableEncoder(len(vectors_YU)).to(memory_format=torch.channels_last)

    def accumulate(step: int) -> dict[str, float]:
        pick_R = torch.randint(len(concept_R), (recipe.batch,), generator=generator)
        other_R = _one_of_each(drawings_YR[concept_R[pick_R]], generator)
        drawn_RCPP = mixed(ink_RCPP[pick_R], ink_RCPP[other_R], recipe.mix, generator)
        match_RY, direct_RU = model(augmented(drawn_RCPP, generator))
        loss = functional.cross_entropy(match_RY, label_YY[concept_R[pick_R]])
        loss = loss + recipe.direct * direct_loss(direct_RU, vectors_YU, concept_R[pick_R])
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    state = TrainingState(model, _optimiser(model, recipe), name="encoder")
    schedule = TrainingSchedule(recipe.steps, minutes=minutes)
    run(state, schedule, accumulate, on_step=lines_of(log.info))
    return model.eval().folded(vectors_YU, recipe).rounded()


def training_pictures(
    vectors: emoji.Vectors = "universal",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return drawings (R, P, P, 3), each one's place among the training concepts (R), and those
    concepts' vectors (Y, U)."""
    train_Y = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")
    place = np.full(len(emoji.concepts()), -1)
    place[train_Y] = np.arange(len(train_Y))
    chosen = {vendor: emoji.drawn_by(vendor, "train") for vendor in TRAIN_VENDORS}
    pictures = np.concatenate([emoji.sheet(v)[indices] for v, indices in chosen.items()])
    concept_R = np.concatenate([place[indices] for indices in chosen.values()])
    vectors_YU: NDArray[np.float32] = emoji.concept_vectors(FEATURES, vectors)[train_Y]
    return torch.from_numpy(pictures), torch.from_numpy(concept_R), torch.from_numpy(vectors_YU)


def drawings_of(concept_R: Tensor) -> Tensor:
    """Return the indices of each concept's drawings (Y, R); some are repeated where vendors lack
    the concept."""
    drawings = [torch.nonzero(concept_R == v).flatten() for v in range(int(concept_R.max()) + 1)]
    most = torch.arange(max(len(numbers) for numbers in drawings))
    return torch.stack([numbers[most % len(numbers)] for numbers in drawings])


def labels(vectors_YU: Tensor, kinship: float) -> Tensor:
    """Return the lookup's target for each concept (Y, Y): itself, and concepts of like meaning."""
    unit_YU = functional.normalize(vectors_YU, dim=1)
    kin_YY = (unit_YU @ unit_YU.T / 0.1).softmax(1)
    return torch.lerp(torch.eye(len(vectors_YU)), kin_YY, kinship)


def direct_loss(direct_RU: Tensor, vectors_YU: Tensor, concept_R: Tensor) -> Tensor:
    """Return the cross-entropy over concepts by cosine, averaged over all and the leading dims."""
    losses = []
    for dims, temperature in JUDGED_DIMS:
        predicted_RU = functional.normalize(direct_RU[:, :dims], dim=1)
        expected_YU = functional.normalize(vectors_YU[:, :dims], dim=1)
        cosine_RY = predicted_RU @ expected_YU.T
        losses.append(functional.cross_entropy(cosine_RY / temperature, concept_R))
    return torch.stack(losses).mean()


def augmented(ink_RCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures as another vendor might draw them; ink is 0 on paper."""
    return redrawn(ink_RCPP, generator).contiguous(memory_format=torch.channels_last)


def _optimiser(model: TrainableEncoder, recipe: EncoderRecipe) -> torch.optim.Optimizer:
    """Return AdamW, without decay for gains, biases and the keys' one scale."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=True)


def _one_of_each(choices_RY: Tensor, generator: torch.Generator) -> Tensor:
    """Return one random column of each row (R)."""
    n, most = choices_RY.shape
    return choices_RY[torch.arange(n), torch.randint(most, (n,), generator=generator)]


def _as_weights(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the gain and the bias that batch normalisation amounts to after training."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain_C = norm.weight / (norm.running_var + norm.eps).sqrt()
    return gain_C, norm.bias - norm.running_mean * gain_C


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the image encoder that ships with adaptd.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=EncoderRecipe().steps)
    parser.add_argument("--minutes", type=float, help="stop early; figures then vary with speed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = replace(EncoderRecipe(), steps=arguments.steps)
    started = time.process_time()
    spec = train_encoder(recipe, arguments.seed, arguments.minutes)
    log.info("trained in %.0f s of a core", time.process_time() - started)
    save_part(spec, arguments.out, {"training": f"seed {arguments.seed}, {recipe}"})
    log.info("wrote %s", arguments.out)


if __name__ == "__main__":
    main()
