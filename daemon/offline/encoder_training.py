"""Trains encoders on recorded events, before a θ is meta-trained on their features."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from daemon.offline import dataset
from daemon.offline.dataset import RawPair, Reading
from daemon.offline.sides import Side, Sides
from model.meta.encoders.content_episodes import ContentEpisodes, Contents, ContentStream
from model.meta.encoders.content_store import Room, StoredSide
from model.meta.encoders.training import EncodersRecipe, train_encoders
from model.meta.episodes import EpisodeSizes
from model.meta.progress import Progress, Saving
from model.meta.splits import Split, part_of
from model.values.errors import BadData


def train_sides(
    sides: Sides,
    pairs: Iterable[RawPair],
    split: Split,
    temporal: bool,
    recipe: EncodersRecipe,
    saving: Saving | None,
    on_step: Callable[[Progress], None],
) -> Sides:
    """Train the encoders of the sides that are to be trained, on the training streams alone;
    validation streams tell when to stop, and test streams are not looked at.

    Returns the sides with their new encoders. Raises Misconfigured without usable pairs, BadData
    where no stream is long enough or contents take too much memory, and what `train_encoders`
    raises.
    """
    room = Room()
    source, target = (_stored(side, room) for side in (sides.source, sides.target))
    seen = (p for p in pairs if part_of(p.stream, split.seed, split.fractions) != "test")
    parts = split(dataset.stored(seen, source, target, Reading()))
    sizes = recipe.episode_sizes(temporal)
    contents = Contents(
        source.store,
        target.store,
        ContentEpisodes(parts.train, sizes),
        _episodes_or_none(parts.validation, sizes),
    )
    started = [side.spec if side.to_train else None for side in (sides.source, sides.target)]
    found = train_encoders(contents, started[0], started[1], recipe, saving, on_step)
    return Sides(
        sides.source if found.source is None else sides.source.trained_as(found.source),
        sides.target if found.target is None else sides.target.trained_as(found.target),
        found.progress,
    )


def how_trained(sides: Sides) -> str:
    """Describe the training of the sides' encoders in a line."""
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


def _stored(side: Side, room: Room) -> StoredSide:
    return StoredSide(side.encoder, room, features=not side.to_train)


def _episodes_or_none(streams: list[ContentStream], sizes: EpisodeSizes) -> ContentEpisodes | None:
    """Return None where no stream is long enough: then there is no validation."""
    try:
        return ContentEpisodes(streams, sizes) if streams else None
    except BadData:
        return None
