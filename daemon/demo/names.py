"""Image → text: a stream is a language; an event pairs a picture with the emoji's name in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from daemon.demo.malformed import Malformed
from daemon.demo.part import VENDOR, PartName
from daemon.wire.paired_event import Text
from model.emoji import drawings as emoji
from model.emoji import names as emoji_names

LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "ar": "Arabic",
    "ja": "Japanese",
    "da": "Danish",
    "uk": "Ukrainian",
    "ne": "Nepali",
}
"""Five scripts; the last three languages are held out of all training."""
UNSEEN = frozenset(LANGUAGES) & frozenset(emoji_names.HELD_OUT_LANGUAGES)


@dataclass(frozen=True, slots=True)
class Names:
    """The languages' part; see `daemon.demo.part.Part`."""

    events_per_stream: int
    name: PartName = "names"
    streams: tuple[str, ...] = tuple(LANGUAGES)
    malformed: tuple[Malformed, ...] = ()

    def pool(self, stream: str) -> tuple[int, ...]:
        """The training concepts that the vendor draws and the language names."""
        return _named(stream)

    def target(self, stream: str, concept: int) -> Text:
        """The raw name."""
        return Text(self.called(stream, concept))

    def called(self, stream: str, concept: int) -> str:
        """The name; raises KeyError for a language or a concept without one."""
        return emoji_names.names_in(stream)[concept].name


@cache
def _named(language: str) -> tuple[int, ...]:
    known = emoji_names.names_in(language)
    return tuple(int(i) for i in emoji.drawn_by(VENDOR, "train") if int(i) in known)
