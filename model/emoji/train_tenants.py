"""Meta-trains the θs that ship with an attention generator: emoji pictures into tenants' spaces.

R = rows (pictures; of a concept, after Y), Y = candidates (concepts of the training split),
B = streams in batch (tenants), S = support pairs, Q = query pairs, N = pairs of a stream,
C = channels, P = pixels a side, D = source dim, E = target dim

    python -m model.emoji.train_tenants --out FILE                     (low-rank, 32 dimensions)
    python -m model.emoji.train_tenants --families both --encoder-from FILE --out FILE       (16)

1. The image encoder is trained, or that of an existing θ is taken; then every training drawing is
   augmented a few times and encoded once.
2. `model.emoji.tenant_training` trains u(x) and the generator on those features, over synthetic
   tenants.
3. The held-out vendor's drawings are used for the first time, to report.
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from torch import Tensor

from model.baselines.ridge import fit_ridge
from model.emoji import drawings as emoji
from model.emoji.augment import redrawn
from model.emoji.tenant_training import (
    Features,
    TenantModel,
    TenantRecipe,
    train_tenant_model,
)
from model.emoji.tenants import ROTATION_DIM, TENANT_SEED, Family, Tenant
from model.emoji.train_pictures import TRAIN_VENDORS, EncoderRecipe, train_encoder
from model.encoders.image import ImageEncoder, normalised
from model.inner import learners
from model.mappings.mlp import Activation, Mlp, apply, apply_batched
from model.theta.meta_init import MetaInit, usual_sources_of
from model.theta.meta_init_file import save_meta_init
from model.theta.part import PartSpec
from model.theta.part_file import load_encoder

log = logging.getLogger(__name__)

RECIPES = {
    "low-rank": TenantRecipe(),
    "both": TenantRecipe(
        shares=(("low-rank", 0.45), ("rotation", 0.45), ("sheared", 0.1)),
        dim=ROTATION_DIM,
        steps=2_500,
        generators=8,
    ),
}
AUGMENTATIONS = 4
"""Cached pictures of each drawing, the drawing itself included."""
PICTURES_PER_CHUNK = 64
FAMILIES: tuple[Family, ...] = ("low-rank", "rotation", "linear", "permutation")
SUPPORT_SIZES = (0, 5, 16, 64)
CANDIDATES = 128
IDLE_RATE = 1e-9
"""Inner learning rate: the generator alone makes the mapping, the step after it moves nothing."""


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """R@1 among 128 by Euclidean distance for one family at one number of pairs: means over tenants
    and seeds."""

    family: str
    pairs: int
    adapted: float
    ceiling: float
    """u(x) under the tenant's own matrix."""
    ridge: float
    loss: float
    """Mean squared error of the adapted mapping."""


def cache_features(spec: PartSpec, dim: int, seed: int) -> Features:
    """Encode augmented pictures of every training concept as drawn by every training vendor."""
    encoder = ImageEncoder(spec, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    concepts_Y = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")
    columns = []
    for vendor in TRAIN_VENDORS:
        drawn_Y = [vendor not in emoji.concepts()[v].missing for v in concepts_Y]
        ink = normalised(torch.from_numpy(emoji.sheet(vendor)[concepts_Y]))
        for version in (ink, *(redrawn(ink, generator) for _ in range(AUGMENTATIONS - 1))):
            features_YD = _encoded(encoder, version)
            columns.append(features_YD.masked_fill(~torch.tensor(drawn_Y)[:, None], float("nan")))
    vectors_YE = torch.tensor(emoji.concept_vectors(dim)[concepts_Y])
    return Features(_without_gaps(torch.stack(columns, dim=1)), vectors_YE)


def measure(
    trained: TenantModel,
    recipe: TenantRecipe,
    x_RD: Tensor,
    drawn_R: Tensor,
    families: tuple[Family, ...] = FAMILIES,
    tenants: int = 40,
    seeds: int = 3,
) -> list[TenantFigures]:
    """Judge on tenants never trained on, with a vendor's features `x_RD` of concepts `drawn_R`."""
    vectors_RE = torch.tensor(emoji.concept_vectors(recipe.dim))[drawn_R]
    rows = []
    for family in families:
        drawn = [Tenant(TENANT_SEED + t, family, recipe.dim) for t in range(tenants)]
        matrix_BEE = torch.from_numpy(np.stack([tenant.matrix_EE() for tenant in drawn]))
        for pairs in SUPPORT_SIZES:
            scores = [
                _scores(trained, recipe, x_RD, vectors_RE, matrix_BEE, pairs, seed)
                for seed in range(seeds)
            ]
            rows.append(TenantFigures(family, pairs, *np.mean(scores, axis=0).tolist()))
    return rows


@torch.inference_mode()
def _scores(
    trained: TenantModel,
    recipe: TenantRecipe,
    x_RD: Tensor,
    vectors_RE: Tensor,
    matrix_BEE: Tensor,
    pairs: int,
    seed: int,
) -> tuple[float, float, float, float]:
    """Return R@1 adapted, with the known matrix and of ridge, and the loss, over one episode of
    every tenant."""
    orders = [
        np.random.default_rng([t, seed]).permutation(len(x_RD)) for t in range(len(matrix_BEE))
    ]
    order_BN = torch.from_numpy(np.stack(orders))[:, : pairs + CANDIDATES]
    x_BND, y_BNE = x_RD[order_BN], torch.bmm(vectors_RE[order_BN], matrix_BEE)
    x_BQD, y_BQE = x_BND[:, pairs:], y_BNE[:, pairs:]
    x_BSD, y_BSE = (t[:, : max(pairs, 1)] for t in (x_BND, y_BNE))
    real_BS = torch.full(x_BSD.shape[:2], pairs > 0)
    theta, activation = trained.theta(), recipe.activation
    start = trained.attention.start(theta, x_BSD, y_BSE, real_BS, activation)
    o_BQE = apply_batched(start, x_BQD, activation)
    known_BQE = torch.bmm(apply(theta, x_BQD, activation), matrix_BEE)
    loss = (o_BQE - y_BQE).square().mean().item()
    ridge = _ridge_recall(x_BSD, y_BSE, x_BQD, y_BQE) if pairs else float("nan")
    return _recall_at_1(o_BQE, y_BQE), _recall_at_1(known_BQE, y_BQE), ridge, loss


def _ridge_recall(x_BSD: Tensor, y_BSE: Tensor, x_BQD: Tensor, y_BQE: Tensor) -> float:
    predicted = [
        fit_ridge(x.numpy(), y.numpy())(q.numpy())
        for x, y, q in zip(x_BSD, y_BSE, x_BQD, strict=True)
    ]
    return _recall_at_1(torch.from_numpy(np.stack(predicted)), y_BQE)


def _recall_at_1(o_BQE: Tensor, y_BQE: Tensor) -> float:
    # not by a matrix product, in which squares cancel; a tie is no hit
    distance_BQQ = torch.cdist(o_BQE, y_BQE, compute_mode="donot_use_mm_for_euclid_dist")
    own_BQ1 = distance_BQQ.diagonal(dim1=1, dim2=2).unsqueeze(2)
    return ((distance_BQQ <= own_BQ1).sum(2) == 1).float().mean().item()


def usual_sources(features: Features) -> PartSpec | None:
    """Return the mean and spread of all these pictures, as a part of the θ trained on them."""
    return usual_sources_of(features.x_YRD.flatten(0, 1).numpy())


def as_meta_init(
    theta: Mlp,
    activation: Activation,
    generator: PartSpec,
    encoder: PartSpec | None,
    usual: PartSpec | None,
    name: str,
    facts: dict[str, str],
    parent: str | None = None,
) -> MetaInit:
    """Return θ's mapping with its generator and its encoder, as it is published: the start of its
    content hash follows the name in its version."""
    mapping = {n: tensor.detach().numpy().copy() for n, tensor in theta._asdict().items()}
    hidden_dim, source_dim = mapping["w1"].shape
    dims = (source_dim, hidden_dim, len(mapping["b2"]))
    meta_init = MetaInit(
        version=name,
        source_modality="image",
        target_modality="vector",
        source_dim=source_dim,
        hidden_dim=hidden_dim,
        target_dim=len(mapping["b2"]),
        activation=activation,
        mapping=mapping,
        learner=learners.fresh_learner("maml", *dims, steps=1, rate=IDLE_RATE),
        generator=generator,
        source_encoder=encoder,
        usual_sources=usual,
        parent=parent,
        facts=facts,
    )
    return replace(meta_init, version=f"{name}-{meta_init.content_hash[:8]}")


def tenant_table(title: str, rows: list[TenantFigures]) -> Table:
    """Return the figures as a table for a terminal."""
    table = Table(title=title)
    for heading in ("tenants", "pairs", "R@1", "known matrix", "ridge", "loss"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (row.adapted, row.ceiling, row.ridge, row.loss)
        table.add_row(row.family, str(row.pairs), *(f"{figure:.3f}" for figure in figures))
    return table


def tenant_fact(rows: list[TenantFigures]) -> str:
    """Return the figures as a fact for θ's file: JSON, rounded."""
    names = ("family", "pairs", "adapted", "ceiling", "ridge", "loss")
    values = [[getattr(row, name) for name in names] for row in rows]
    rounded = [[round(v, 3) if isinstance(v, float) else v for v in row] for row in values]
    return json.dumps([dict(zip(names, row, strict=True)) for row in rounded])


def held_out(
    spec: PartSpec, split: emoji.Split = "train", vendor: str = emoji.HELD_OUT_VENDOR
) -> tuple[Tensor, Tensor]:
    """Encode a vendor's drawings of the split's concepts. Return features (R, D) and the concepts
    (R)."""
    drawn_R = emoji.drawn_by(vendor, split)
    ink = normalised(torch.from_numpy(emoji.sheet(vendor)[drawn_R]))
    return _encoded(ImageEncoder(spec, torch.device("cpu")), ink), torch.from_numpy(drawn_R)


def _encoded(encoder: ImageEncoder, ink_RCPP: Tensor) -> Tensor:
    chunks = torch.split(ink_RCPP, PICTURES_PER_CHUNK)
    # out of inference mode, so that training may keep them for its backward pass
    return torch.cat([encoder.encode_ink(chunk) for chunk in chunks]).clone()


def _without_gaps(x_YRD: Tensor) -> Tensor:
    """Replace features of a missing drawing (NaN) by those of another vendor's drawing."""
    filled_YRD = x_YRD.clone()
    for v, x_RD in enumerate(x_YRD):
        drawn_R = torch.nonzero(~x_RD[:, 0].isnan()).flatten()
        filled_YRD[v] = x_RD[drawn_R[torch.arange(len(x_RD)) % len(drawn_R)]]
    return filled_YRD


def encoder_for(path: Path | None, seed: int) -> tuple[PartSpec, str]:
    """Load the encoder from a file, or train a new one where there is none. Return it, and a text
    that says where it is from."""
    if path is None:
        recipe = EncoderRecipe()
        return train_encoder(recipe, seed, None), str(recipe)
    return load_encoder(path, "image"), f"encoder of {path.name}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Meta-train a θ with an attention generator.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder-from", type=Path, help="the image encoder, or a θ that has it")
    parser.add_argument("--families", choices=sorted(RECIPES), default="low-rank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop early; figures then vary with speed")
    parser.add_argument("--steps", type=int, help="outer steps, instead of the recipe's")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    encoder, origin = encoder_for(arguments.encoder_from, arguments.seed)
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    recipe = RECIPES[arguments.families]
    recipe = replace(recipe, steps=arguments.steps or recipe.steps)
    started = time.process_time()
    features = cache_features(encoder, recipe.dim, arguments.seed)
    trained = train_tenant_model(features, recipe, arguments.seed, arguments.minutes)
    log.info("trained in %.0f s of a core", time.process_time() - started)
    rows = measure(trained, recipe, *held_out(encoder))
    unseen = measure(trained, recipe, *held_out(encoder, "validation"))
    console = Console()
    console.print(tenant_table(f"{emoji.HELD_OUT_VENDOR}, training concepts", rows))
    console.print(tenant_table(f"{emoji.HELD_OUT_VENDOR}, concepts never trained on", unseen))
    facts = {
        "training": f"seed {arguments.seed}, {origin}, {recipe}",
        "data": f"{', '.join(TRAIN_VENDORS)}; training split; synthetic tenants",
        "evaluation": tenant_fact(rows),
        "evaluation_unseen_concepts": tenant_fact(unseen),
    }
    theta = as_meta_init(
        trained.theta(),
        recipe.activation,
        trained.attention.spec(),
        encoder,
        usual_sources(features),
        arguments.out.stem,
        facts,
    )
    save_meta_init(theta, arguments.out)


if __name__ == "__main__":
    main()
