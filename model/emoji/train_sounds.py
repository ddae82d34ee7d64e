"""Trains the audio encoder to map a spoken name to its concept's place in the universal embedding.

R = rows (clips), Y = candidates (concepts), T = time steps (samples), U = numbers of an embedding

    python -m model.emoji.train_sounds --out model/emoji/data/spoken.safetensors

espeak-ng says the names, in five languages and ten voices; the loss is that of names as texts
(`model.emoji.train_names`), so what is said and what is written meet in the same space. A θ that
reads pictures in that space then takes sounds as well.
"""

import argparse
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.emoji import drawings as emoji
from model.emoji.spoken import (
    CONCEPTS,
    HELD_OUT_VOICES,
    SPOKEN_LANGUAGES,
    VOICES,
    WORDS_PER_MINUTE,
    Utterance,
    said_by,
    spoken_concepts,
)
from model.emoji.train_names import FEATURES, TextRecipe, concept_loss
from model.encoders.audio import AudioEncoder, AudioNet, AudioSizes
from model.encoders.sequences import padded_batch
from model.encoders.trained_part import fresh_net
from model.meta.loop import run
from model.meta.progress import TrainingSchedule, seeded
from model.meta.progress_lines import lines_of
from model.meta.state import TrainingState
from model.retrieval import cosine_scores
from model.theta.part import PartSpec
from model.theta.part_file import save_part

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SoundRecipe:
    """How the audio encoder is trained; the shipped one was trained with these values."""

    sizes: AudioSizes = field(
        default_factory=lambda: AudioSizes(
            dim=FEATURES, max_ms=15_000, bands=32, channels=(8, 16, 32, 96)
        )
    )
    concepts: int = CONCEPTS
    takes: int = 2
    """Voices that say each name, drawn anew for every name and language."""
    steps: int = 600
    batch: int = 32
    rate: float = 4e-3
    weight_decay: float = 0.01
    loss: TextRecipe = field(default_factory=TextRecipe)
    """Of which temperature and pull are used."""


def training_utterances(recipe: SoundRecipe, seed: int) -> list[Utterance]:
    """Return what is said in training: every name by some voices, at some speed."""
    rng = np.random.default_rng(seed)
    return [
        Utterance(concept, language, str(voice), int(rng.integers(*WORDS_PER_MINUTE)))
        for language in SPOKEN_LANGUAGES
        for concept in spoken_concepts(recipe.concepts)
        for voice in rng.choice(VOICES, recipe.takes, replace=False)
    ]


def train_sounds(recipe: SoundRecipe, seed: int, minutes: float | None = None) -> PartSpec:
    """Train the audio encoder. Raises BadData where espeak-ng is not installed."""
    concepts = spoken_concepts(recipe.concepts)
    said = training_utterances(recipe, seed)
    net = fresh_net(lambda: AudioNet(recipe.sizes), seed).train().requires_grad_(True)
    waves = heard(AudioEncoder(net.spec(), torch.device("cpu")), said)
    log.info("%d clips of %d concepts heard", len(waves), len(concepts))
    place_R = torch.tensor([concepts.index(u.concept) for u in said])
    vectors_YU = torch.from_numpy(emoji.concept_vectors(FEATURES)[concepts])
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )

    def accumulate(step: int) -> dict[str, float]:
        rows = torch.randint(len(waves), (recipe.batch,), generator=seeded(seed, "sounds", step))
        chosen = [waves[row] for row in rows.tolist()]
        wave_RT, length_R = padded_batch(chosen, len(chosen), max(map(len, chosen)))
        features_RU = net(wave_RT, length_R)
        loss = concept_loss(features_RU, vectors_YU, place_R[rows], recipe.loss)
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    state = TrainingState(net, optimiser, name="sounds")
    schedule = TrainingSchedule(recipe.steps, max_gradient_norm=1.0, minutes=minutes)
    run(state, schedule, accumulate, on_step=lines_of(log.info))
    return net.spec()


def heard(encoder: AudioEncoder, said: list[Utterance]) -> list[NDArray[np.float32]]:
    """Return the samples (T) of what is said, as the encoder takes them."""
    return [encoder.prepare(utterance.clip()) for utterance in said]


def recall_of(encoder: AudioEncoder, voice: str, language: str, concepts: list[int]) -> float:
    """Return R@1 of what a voice says among all the concepts' vectors, by cosine."""
    features_RU = encoder.encode(heard(encoder, said_by(voice, language, concepts))).numpy()
    vectors_YU = emoji.concept_vectors(FEATURES)[concepts]
    found_R = cosine_scores(features_RU, vectors_YU).argmax(1)
    return float((found_R == np.arange(len(concepts))).mean())


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Train the audio encoder that ships with adaptd.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SoundRecipe().steps)
    parser.add_argument("--minutes", type=float, help="stop early; figures then vary with speed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)  # sums, and so the last bits, depend on them
    recipe = SoundRecipe(steps=arguments.steps)
    started = time.process_time()
    spec = train_sounds(recipe, arguments.seed, arguments.minutes).rounded()
    log.info("trained in %.0f s of a core", time.process_time() - started)
    encoder, concepts = AudioEncoder(spec, torch.device("cpu")), spoken_concepts(recipe.concepts)
    facts = {"training": f"seed {arguments.seed}, {recipe}", "voices": ", ".join(VOICES)}
    for language in SPOKEN_LANGUAGES:
        recall = recall_of(encoder, HELD_OUT_VOICES[-1], language, concepts)
        facts[f"R@1 of {len(concepts)}, {language}+{HELD_OUT_VOICES[-1]}"] = f"{recall:.3f}"
    for name, fact in facts.items():
        log.info("%s: %s", name, fact)
    save_part(spec, arguments.out, facts)
    log.info("wrote %s", arguments.out)


if __name__ == "__main__":
    main()
