"""Meta-trains θs without an attention generator, by `model.meta.training`.

Y = candidates (concepts), R = rows (pictures of a concept), Z = slots (languages), D = source dim,
E = target dim

    python -m model.emoji.train_thetas maml  --encoder-from FILE --out FILE
    python -m model.emoji.train_thetas names --encoder-from FILE --text-from FILE --out FILE
    python -m model.emoji.train_thetas languages --dim 32 --encoder-from FILE --out FILE

maml: emoji pictures into low-rank tenants' spaces, by exact second-order gradient steps with
learned rates (Meta-SGD per tensor), beside which the attention generator's θ is judged.
names: emoji pictures to what a language calls them; a stream is a language.
languages: emoji pictures into a space that a language's names alone make
(`model.emoji.language_spaces`), by a head with a learned prior covariance. Give it the encoder of
`model.emoji.clean_encoder`. This θ does not ship.

All take the image encoder as it is. Nothing here sees the held-out vendor, the held-out languages,
or a concept outside the training split.
"""

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.logging import RichHandler

from model.emoji import drawings as emoji
from model.emoji import language_spaces
from model.emoji import names as emoji_names
from model.emoji.language_spaces import read_spaces
from model.emoji.tenants import LOW_RANK_DIM
from model.emoji.train_pictures import TRAIN_VENDORS
from model.emoji.train_tenants import cache_features, usual_sources
from model.emoji.training_episodes import (
    LanguageEpisodes,
    Pictures,
    TenantEpisodes,
    read_names,
)
from model.encoders.build import encoder_from
from model.inner.cost_rule import Form
from model.losses import MSE, Loss
from model.meta.progress_lines import lines_of
from model.meta.recipe import Recipe, Term
from model.meta.training import Data, train_theta
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import save_meta_init
from model.theta.part import PartSpec
from model.theta.part_file import load_encoder

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
MAML = Recipe(
    learner="meta-sgd",
    hidden_dim=256,
    inner_steps=5,
    outer_losses=(Term(MSE), Term(Loss("infonce"), 0.2)),
    steps=4_000,
    rate=3e-3,
    min_support=3,
    validate_every=250,
    patience=1_000,
)
FORM: Form = "full"
"""The form in which the θs that ship were trained, so that they come out byte for byte."""
RECIPES = {
    "maml": MAML,
    "names": replace(MAML, inner_steps=3, steps=1_000),
    "languages": replace(MAML, learner="alpaca", steps=400),
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Meta-train a θ that ships with adaptd.")
    parser.add_argument("kind", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--encoder-from", type=Path, required=True, help="the image encoder, or a θ that has it"
    )
    parser.add_argument("--text-from", type=Path, help="names: the text encoder, likewise")
    parser.add_argument("--dim", type=int, default=LOW_RANK_DIM, help="languages: of their spaces")
    parser.add_argument("--steps", type=int, help="outer steps, instead of the recipe's")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    started = time.process_time()
    encoder = load_encoder(arguments.encoder_from, "image")
    recipe = RECIPES[arguments.kind]
    if arguments.steps:
        recipe = Recipe.from_config(recipe.to_config() | {"steps": arguments.steps})
    if arguments.kind == "maml":
        theta = maml_theta(encoder, recipe)
    elif arguments.kind == "languages":
        theta = languages_theta(encoder, recipe, arguments.dim)
    else:
        theta = names_theta(encoder, load_encoder(arguments.text_from, "text"), recipe)
    log.info("trained in %.0f s of a core", time.process_time() - started)
    save_meta_init(theta, arguments.out)
    Console().print(f"wrote {arguments.out}: {theta.version}")


def maml_theta(encoder: PartSpec, recipe: Recipe) -> MetaInit:
    """Meta-train the θ from pictures into low-rank tenants' spaces."""
    features = cache_features(encoder, LOW_RANK_DIM, recipe.seed)
    source = TenantEpisodes(
        Pictures(features.x_YRD), features.u_YE, "low-rank", recipe.episode_sizes()
    )
    trained = train_theta(Data(source), recipe, on_step=lines_of(log.info), form=FORM)
    return trained.parameters.meta_init(
        "emoji-lowrank-maml",
        "image",
        "vector",
        encoder,
        usual_sources=usual_sources(features),
        facts=_facts(recipe, "training split; synthetic low-rank tenants"),
    )


def names_theta(encoder: PartSpec, text: PartSpec, recipe: Recipe) -> MetaInit:
    """Meta-train the θ from pictures to names."""
    text_encoder = encoder_from(text, "text", int(text.config["dim"]), CPU)
    concepts = [int(c) for c in emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")]
    spoken = read_names(text_encoder, emoji_names.trained_languages(), concepts)
    features = cache_features(encoder, text_encoder.dim, recipe.seed)
    source = LanguageEpisodes(Pictures(features.x_YRD), spoken, recipe.episode_sizes())
    trained = train_theta(Data(source), recipe, on_step=lines_of(log.info), form=FORM)
    return trained.parameters.meta_init(
        "emoji-names",
        "image",
        "text",
        encoder,
        text,
        usual_sources(features),
        facts=_facts(recipe, f"training split; names in {len(spoken.y_ZYE)} languages"),
    )


def languages_theta(encoder: PartSpec, recipe: Recipe, dim: int) -> MetaInit:
    """Meta-train the θ from pictures into spaces of `dim` dimensions that languages have."""
    concepts = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train").tolist()
    spaces = read_spaces(language_spaces.split_languages(trained=True), concepts, dim)
    features = cache_features(encoder, dim, recipe.seed)
    source = LanguageEpisodes(Pictures(features.x_YRD), spaces, recipe.episode_sizes())
    trained = train_theta(Data(source), recipe, on_step=lines_of(log.info), form=FORM)
    return trained.parameters.meta_init(
        f"emoji-languages-{dim}",
        "image",
        "vector",
        encoder,
        usual_sources=usual_sources(features),
        facts=_facts(recipe, f"training split; spaces of {len(spaces.y_ZYE)} languages"),
    )


def _facts(recipe: Recipe, data: str) -> dict[str, str]:
    return {"training": f"{recipe.to_config()}", "data": f"{', '.join(TRAIN_VENDORS)}; {data}"}


if __name__ == "__main__":
    main()
