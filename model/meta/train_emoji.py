"""Meta-trains the θ that ships: emoji pictures into low-rank tenants' spaces.

V = concepts of the training split, A = pictures of a concept, P = pixels a side, D = features

    python -m model.meta.train_emoji --out model/meta_inits/emoji-lowrank.safetensors

1. The encoder learns where a picture's concept lies in the universal embedding.
2. It is frozen; every training drawing is augmented a few times and encoded once.
3. MAML moves θ and the inner rates over synthetic tenants, on those features.
4. The held-out vendor's drawings are used for the first time, to report.
"""

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.logging import RichHandler
from torch import Tensor

from model.data import emoji
from model.encoders.image import ImageEncoder, normalised
from model.evaluate.emoji import as_fact, as_table, evaluate
from model.meta import maml
from model.meta.train_encoder import TRAIN_VENDORS, EncoderRecipe, augmented, train_encoder
from model.meta_init import EncoderSpec, MetaInit, load, save

log = logging.getLogger(__name__)

ENCODER_SHARE = 0.5
"""Of a time limit; the outer loop gets the rest."""
AUGMENTATIONS = 4
"""Pictures cached for each drawing, the drawing itself included."""
ENCODER_THREADS = 2
OUTER_THREADS = 1
"""Matrices this small gain nothing from a second thread."""


def meta_train(
    spec: EncoderSpec, origin: str, recipe: maml.MamlRecipe, seed: int, minutes: float | None
) -> MetaInit:
    """θ and its rates on top of an encoder (`origin` says whose), without evaluation."""
    features = cache_features(spec, seed)
    log.info("features %s cached", tuple(features.x_VAD.shape))
    parameters = maml.train(features, recipe, seed, minutes)
    theta = parameters.theta()._asdict()
    mapping = {name: tensor.detach().numpy() for name, tensor in theta.items()}
    hidden_dim, source_dim = mapping["w1"].shape
    meta_init = MetaInit(
        version="emoji-lowrank",
        source_modality="image",
        target_modality="vector",
        source_dim=source_dim,
        hidden_dim=hidden_dim,
        target_dim=emoji.LOW_RANK_DIM,
        activation=recipe.activation,
        mapping=mapping,
        rates_K4=parameters.rates_K4().detach().numpy(),
        encoder=spec,
        facts={
            "training": f"seed {seed}, {origin}, {recipe}",
            "data": f"{', '.join(TRAIN_VENDORS)}; training split; synthetic low-rank tenants",
        },
    )
    return replace(meta_init, version=f"emoji-lowrank-{meta_init.content_hash[:8]}")


def cache_features(spec: EncoderSpec, seed: int) -> maml.Features:
    """Features of every training concept as drawn by every training vendor, augmented."""
    encoder = ImageEncoder(spec, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    concepts_V = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")
    columns = []
    for vendor in TRAIN_VENDORS:
        drawn_V = [vendor not in emoji.concepts()[v].missing for v in concepts_V]
        ink = normalised(torch.from_numpy(emoji.sheet(vendor)[concepts_V]))
        versions = [ink, *(augmented(ink, generator) for _ in range(AUGMENTATIONS - 1))]
        for version in versions:
            features_VD = torch.cat([encoder.encode_ink(part) for part in torch.split(version, 64)])
            columns.append(features_VD.masked_fill(~torch.tensor(drawn_V)[:, None], float("nan")))
    vectors = torch.from_numpy(emoji.concept_vectors(emoji.LOW_RANK_DIM)[concepts_V])
    return maml.Features(_without_gaps(torch.stack(columns, dim=1)), vectors)


def _without_gaps(x_VAD: Tensor) -> Tensor:
    """Where a vendor does not draw a concept, another vendor's drawing stands in."""
    filled_VAD = x_VAD.clone()
    for v, x_AD in enumerate(x_VAD):
        drawn_A = torch.nonzero(~x_AD[:, 0].isnan()).flatten()
        filled_VAD[v] = x_AD[drawn_A[torch.arange(len(x_AD)) % len(drawn_A)]]
    return filled_VAD


def with_evaluation(meta_init: MetaInit, console: Console) -> MetaInit:
    """The same θ with what it scores among its facts."""
    held_out = evaluate(meta_init)
    unseen = evaluate(meta_init, split="validation")
    vendor = emoji.HELD_OUT_VENDOR
    console.print(as_table(f"{vendor}, training concepts, synthetic tenants", held_out))
    console.print(as_table(f"{vendor}, unseen concepts, synthetic tenants", unseen))
    facts = {
        "evaluation": as_fact(held_out),
        "evaluation_unseen_concepts": as_fact(unseen),
        "evaluation_note": f"{vendor} drawings, 40 synthetic tenants x 3 seeds, 128 candidates",
    }
    return replace(meta_init, facts=dict(meta_init.facts) | facts)


def encoder_for(arguments: argparse.Namespace) -> tuple[EncoderSpec, str]:
    """The encoder of an existing θ, or a new one; and in words where it is from."""
    if arguments.encoder_from is not None:
        parent = load(arguments.encoder_from)
        if parent.encoder is None:
            raise SystemExit(f"{arguments.encoder_from} has no encoder")
        return parent.encoder, f"encoder of {parent.version}"
    recipe = EncoderRecipe(steps=arguments.encoder_steps)
    limit = arguments.minutes and arguments.minutes * ENCODER_SHARE
    return train_encoder(recipe, arguments.seed, limit), str(recipe)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Meta-train the θ that ships with adaptd.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="stop early; figures then vary with speed")
    parser.add_argument("--encoder-from", type=Path, help="keep the encoder of this θ")
    parser.add_argument("--encoder-steps", type=int, default=EncoderRecipe().steps)
    parser.add_argument("--outer-steps", type=int, default=maml.MamlRecipe().steps)
    arguments = parser.parse_args()
    console = Console()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    torch.set_num_threads(ENCODER_THREADS)
    started = time.monotonic()
    spec, origin = encoder_for(arguments)
    torch.set_num_threads(OUTER_THREADS)
    recipe = maml.MamlRecipe(steps=arguments.outer_steps)
    limit = arguments.minutes and arguments.minutes * (1.0 - ENCODER_SHARE)
    meta_init = meta_train(spec, origin, recipe, arguments.seed, limit)
    log.info("trained in %.0f s", time.monotonic() - started)
    save(with_evaluation(meta_init, console), arguments.out)
    console.print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
