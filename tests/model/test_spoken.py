"""Spoken names: an encoder learns them, and a θ that reads pictures hears with it."""

from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from model.emoji import spoken
from model.emoji.judge_spoken import judge_spoken, with_ears
from model.emoji.spoken import HELD_OUT_VOICES, SPOKEN_LANGUAGES, VOICES, Utterance, spoken_concepts
from model.emoji.train_sounds import SoundRecipe, train_sounds, training_utterances
from model.encoders import audio
from model.encoders.audio import AudioSizes
from model.encoders.build import fresh_encoder_spec
from model.evaluate.comparison import MetaTestPlan
from model.theta.meta_init_file import load_meta_init, shipped
from model.theta.part_file import load_encoder
from model.values.errors import BadData

SMALL = SoundRecipe(
    sizes=AudioSizes(dim=64, max_ms=15_000, bands=16, channels=(4, 8)),
    concepts=4,
    takes=1,
    steps=4,
    batch=4,
)
needs_espeak = pytest.mark.skipif(which(spoken.ESPEAK) is None, reason="espeak-ng is missing")


def test_held_out_voices_say_nothing_in_training() -> None:
    said = training_utterances(replace(SMALL, concepts=12), seed=0)
    assert len(said) == 12 * len(SPOKEN_LANGUAGES)
    assert {u.voice for u in said} <= set(VOICES)
    assert not set(VOICES) & set(HELD_OUT_VOICES)
    assert said == training_utterances(replace(SMALL, concepts=12), seed=0)
    assert len(set(spoken_concepts(100))) == 100


def test_without_espeak_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "ESPEAK", "no-such-program")
    with pytest.raises(BadData, match="apt-get install espeak-ng"):
        Utterance(spoken_concepts(1)[0], "en", "m1").clip()


def test_a_theta_that_reads_pictures_takes_another_encoder() -> None:
    theta = load_meta_init(shipped("emoji-lowrank"))
    hearing = with_ears(theta, fresh_encoder_spec(audio.KIND, 64, 0))
    assert (hearing.source_modality, hearing.target_modality) == ("audio", "vector")
    assert hearing.mapping is theta.mapping
    assert hearing.version != theta.version


@needs_espeak
def test_what_is_trained_repeats_itself_and_is_judged() -> None:
    first, again = train_sounds(SMALL, 1), train_sounds(SMALL, 1)
    assert all(np.array_equal(first.tensors[n], t) for n, t in again.tensors.items())
    theta = load_meta_init(shipped("emoji-lowrank"))
    table = judge_spoken(theta, first, MetaTestPlan((5,), 1, 8), ("en",), 20)
    assert table.streams == len(HELD_OUT_VOICES)
    assert {row.figures.method for row in table.rows} >= {"gated", "ridge", "random"}


def test_the_shipped_encoder_says_how_well_it_hears() -> None:
    path = Path(spoken.SPOKEN_ENCODER)
    assert load_encoder(path, "audio").config["dim"] == 64
    assert path.stat().st_size < 500_000
