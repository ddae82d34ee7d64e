"""Spoken names of emoji: espeak-ng says a concept's name, in several voices and languages.

U = numbers of an embedding

Nothing of it ships but the encoder that was trained on it; espeak-ng (Debian: apt-get install
espeak-ng) makes it again. Held-out voices are never heard in training.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from model.emoji import names as emoji_names
from model.values.contents import AudioClip
from model.values.errors import BadData

SPOKEN_LANGUAGES = ("en", "de", "fr", "es", "it")
VOICES = ("m1", "m2", "m4", "m5", "m6", "m8", "f1", "f2", "f4", "f5")
"""Variants of espeak-ng that an encoder is trained on."""
HELD_OUT_VOICES = ("m3", "f3")
CONCEPTS = 200
"""Concepts that are spoken: the first of the training split."""
WORDS_PER_MINUTE = (150, 230)
ESPEAK = "espeak-ng"
SPOKEN_ENCODER = Path(__file__).parent / "data" / "spoken.safetensors"
"""The audio encoder that ships: takes spoken names to the universal embedding."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One concept's name as one voice says it."""

    concept: int
    language: str
    voice: str
    words_per_minute: int = 190

    def clip(self) -> AudioClip:
        """Let espeak-ng say it. Raises BadData where it is not installed or fails."""
        name = emoji_names.names_in(self.language)[self.concept].name
        voice, speed = f"{self.language}+{self.voice}", str(self.words_per_minute)
        if which(ESPEAK) is None:
            raise BadData("espeak-ng is not installed: apt-get install espeak-ng")
        said = subprocess.run(
            [ESPEAK, "-v", voice, "-s", speed, "--stdin", "--stdout"],
            input=name.encode(),
            capture_output=True,
            check=False,
        )
        if said.returncode or not said.stdout:
            raise BadData(f"espeak-ng could not say {name!r} as {voice}: {said.stderr[-200:]!r}")
        return AudioClip(said.stdout)


def spoken_concepts(count: int = CONCEPTS) -> list[int]:
    """Return the concepts that have a name in every spoken language, the first `count` of them."""
    known = set.intersection(
        *(set(emoji_names.names_in(language)) for language in SPOKEN_LANGUAGES)
    )
    return [c for c in emoji_names.concepts_of("train") if c in known][:count]


def said_by(voice: str, language: str, concepts: Sequence[int]) -> list[Utterance]:
    """Return the concepts' names in one language as one voice says them."""
    return [Utterance(concept, language, voice) for concept in concepts]
