"""Encoders trained on recorded events, before a θ is meta-trained on their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from daemon.offline import dataset
from daemon.offline.dataset import RawPair, Reading
from daemon.offline.encoders import Side
from daemon.offline.parts import Split
from model.meta.cuts import Cut
from model.meta.encoders.content_episodes import Contents
from model.meta.encoders.content_store import Room, StoringEncoder
from model.meta.encoders.training import EncodersRecipe, train_encoders
from model.meta.splits import part_of
from model.meta.state import Progress
from model.meta.streams import RecordedEpisodes, RecordedStream
from model.meta.training import Saving
from model.values.errors import BadData


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides, ready to encode with."""

    source: Side
    target: Side
    trained: Progress | None = None
    """How the training of their encoders went, if there was one."""


def trained_sides(
    sides: Sides,
    pairs: Iterable[RawPair],
    split: Split,
    temporal: bool,
    recipe: EncodersRecipe,
    saving: Saving | None,
    on_step: Callable[[Progress], None],
) -> Sides:
    """Sides whose encoders are trained, on the training streams alone; validation streams say when
    to stop, and the rest is not looked at.

    Raises Misconfigured without usable pairs, BadData where streams do not do or take too much
    memory, and what `train_encoders` raises.
    """
    room = Room()
    source, target = (
        StoringEncoder(side.encoder, room, features=not side.to_train)
        for side in (sides.source, sides.target)
    )
    seen = (p for p in pairs if part_of(p.stream, split.seed, split.fractions) != "test")
    parts = split(dataset.encoded(seen, source, target, Reading()))
    cut = recipe.cut(temporal)
    contents = Contents(
        source.store,
        target.store,
        RecordedEpisodes(parts.train, cut),
        _episodes_or_none(parts.validation, cut),
    )
    started = [side.spec if side.to_train else None for side in (sides.source, sides.target)]
    found = train_encoders(contents, started[0], started[1], recipe, saving, on_step)
    return Sides(
        sides.source if found.source is None else sides.source.trained_as(found.source),
        sides.target if found.target is None else sides.target.trained_as(found.target),
        found.progress,
    )


def how_trained(sides: Sides) -> str:
    """In words, for people."""
    progress = sides.trained
    if progress is None:
        return "none trained"
    names = " and ".join(
        f"{name} ({side.modality})"
        for name, side in (("source", sides.source), ("target", sides.target))
        if side.trained
    )
    if progress.best_loss is None:
        return f"{names}: {progress.step} steps, no validation streams"
    before = progress.history[0]["validation_loss"]
    return (
        f"{names}: {progress.step} steps ({progress.ended}), the best after {progress.best_step}, "
        f"validation loss {before:.3f} -> {progress.best_loss:.3f}"
    )


def _episodes_or_none(streams: list[RecordedStream], cut: Cut) -> RecordedEpisodes | None:
    """None where no stream is long enough: then all steps are done."""
    try:
        return RecordedEpisodes(streams, cut) if streams else None
    except BadData:
        return None
