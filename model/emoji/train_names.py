"""Trains the text encoder to map a name to its concept's place in the universal embedding.

R = rows (texts, of a batch or all), T = time steps (characters), Y = candidates (concepts of the
split), U = numbers of an embedding

    python -m model.emoji.train_names --out text.safetensors

Names and keywords of the training concepts, in every language but the held-out ones, are compared
with the universal vectors of all training concepts, over all dims and over the first 32 and 16;
the loss is the cross-entropy of picking the right concept, plus a pull towards its vector. Where
languages meet, they meet in that space: no text is ever paired with another.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji.name_retrieval import retrieval_facts
from model.emoji.tenants import LOW_RANK_DIM, ROTATION_DIM
from model.encoders.sequences import padded_batch
from model.encoders.text import BASE_LENGTH, TextEncoder, TextNet, TextSizes, code_points
from model.encoders.trained_part import fresh_net
from model.meta.loop import run
from model.meta.progress import TrainingSchedule
from model.meta.progress_lines import lines_of
from model.meta.state import TrainingState
from model.theta.part import PartSpec
from model.theta.part_file import save_part
from model.values.errors import BadContent

log = logging.getLogger(__name__)

FEATURES = 64
DIMS = (FEATURES, LOW_RANK_DIM, ROTATION_DIM)
"""The leading dims over which a text must find its concept."""


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """How the text encoder is trained; the shipped one was trained with these values."""

    sizes: TextSizes = field(default_factory=lambda: TextSizes(dim=FEATURES))
    steps: int = 4_000
    batch: int = 512
    name_share: float = 0.5
    """The share of names in a batch; the rest are keywords, up to `most_keywords` in a row."""
    most_keywords: int = 3
    longest: int = 48
    """Characters after which training texts are cut, for speed."""
    pool: int = 16
    """Batches drawn together, so that texts of like length can share one."""
    blank: float = 0.05
    """The share of characters replaced by code point 0, so that no n-gram is relied on alone."""
    rate: float = 1e-2
    weight_decay: float = 0.01
    temperature: float = 0.1
    pull: float = 1.0


@dataclass(frozen=True, slots=True)
class Texts:
    """Training texts, one row per language and concept."""

    concept_R: NDArray[np.int64]
    """Each row's place among the training concepts."""
    names: list[NDArray[np.int32]]
    keywords: list[list[NDArray[np.int32]]]


def train_text(recipe: TextRecipe, seed: int, minutes: float | None) -> PartSpec:
    """Train the text encoder on the training concepts, in all but the held-out languages."""
    texts = training_texts(emoji_names.trained_languages(), recipe.longest)
    log.info("%d names in %d languages", len(texts.names), len(emoji_names.trained_languages()))
    vectors_YU = torch.from_numpy(emoji.concept_vectors(FEATURES)[emoji_names.concepts_of("train")])
    net = fresh_net(lambda: TextNet(recipe.sizes), seed)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    drawn = batches(texts, recipe, np.random.default_rng(seed))

    def accumulate(step: int) -> dict[str, float]:
        codes_RT, length_R, concept_R = next(drawn)
        loss = concept_loss(net(codes_RT, length_R), vectors_YU, concept_R, recipe)
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    schedule = TrainingSchedule(recipe.steps, max_gradient_norm=1.0, minutes=minutes)
    run(
        TrainingState(net, optimiser, name="text"), schedule, accumulate, on_step=lines_of(log.info)
    )
    return net.spec()


def training_texts(languages: tuple[str, ...], longest: int) -> Texts:
    """Return names and keywords of the training concepts as code points."""
    concept_R, names, keywords = [], [], []
    for language in languages:
        known = emoji_names.names_in(language)
        for place, concept in enumerate(emoji_names.concepts_of("train")):
            if concept in known:
                concept_R.append(place)
                names.append(code_points(known[concept].name, longest))
                keywords.append(_readable(known[concept].keywords, longest))
    return Texts(np.array(concept_R), names, keywords)


def _readable(words: tuple[str, ...], longest: int) -> list[NDArray[np.int32]]:
    found = []
    for word in words:
        try:
            found.append(code_points(word, longest))
        except BadContent:  # a keyword of white space
            continue
    return found


def batches(
    texts: Texts, recipe: TextRecipe, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield code points (R, T), lengths (R) and concepts (R), without end."""
    while True:
        rows = rng.integers(len(texts.names), size=recipe.batch * recipe.pool)
        drawn = [drawn_text(texts, row, recipe, rng) for row in rows]
        order = np.argsort([len(text) for text in drawn], kind="stable")
        for places in rng.permutation(order.reshape(recipe.pool, recipe.batch)):
            chosen = [drawn[place] for place in places]
            longest = -(-max(map(len, chosen)) // BASE_LENGTH) * BASE_LENGTH
            codes_RT, length_R = padded_batch(chosen, recipe.batch, longest)
            concept_R = torch.from_numpy(texts.concept_R[rows[places]])
            yield codes_RT.to(torch.int64), length_R, concept_R


def drawn_text(
    texts: Texts, row: int, recipe: TextRecipe, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return a row's name, or some of its keywords with spaces between, with a few characters
    blanked."""
    words = texts.keywords[row]
    if not words or rng.random() < recipe.name_share:
        text = texts.names[row].copy()
    else:
        count = rng.integers(1, recipe.most_keywords + 1)
        parts = [words[i] for i in rng.permutation(len(words))[:count]]
        joined = [piece for part in parts for piece in (part, _SPACE)][:-1]
        text = np.concatenate(joined)[: recipe.longest]
    text[rng.random(len(text)) < recipe.blank] = 0
    return text


_SPACE = np.array([ord(" ")], np.int32)


def concept_loss(
    features_RU: Tensor, vectors_YU: Tensor, concept_R: Tensor, recipe: TextRecipe
) -> Tensor:
    """Return the cross-entropy over concepts by cosine, plus one minus the right concept's cosine;
    summed over the leading dims of each size."""
    loss = features_RU.new_zeros(())
    for dims in DIMS:
        predicted_RU = functional.normalize(features_RU[:, :dims], dim=1)
        expected_YU = functional.normalize(vectors_YU[:, :dims], dim=1)
        cosine_RY = predicted_RU @ expected_YU.T
        loss = loss + functional.cross_entropy(cosine_RY / recipe.temperature, concept_R)
        loss = loss + recipe.pull * (1.0 - cosine_RY.gather(1, concept_R[:, None])).mean()
    return loss


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the text encoder that ships with adaptd.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=TextRecipe().steps)
    parser.add_argument("--minutes", type=float, help="stop early; figures then vary with speed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    recipe = TextRecipe(steps=arguments.steps)
    started = time.process_time()
    spec = train_text(recipe, arguments.seed, arguments.minutes).rounded()
    log.info("trained in %.0f CPU-seconds", time.process_time() - started)
    facts = {"training": f"seed {arguments.seed}, {recipe}"}
    facts |= retrieval_facts(TextEncoder(spec, torch.device("cpu")))
    for name, fact in facts.items():
        log.info("%s: %s", name, fact)
    save_part(spec, arguments.out, facts)
    log.info("wrote %s", arguments.out)


if __name__ == "__main__":
    main()
