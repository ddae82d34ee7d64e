"""`adaptd meta-train`: events files to a θ, and what it scores on streams it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from daemon.errors import Misconfigured
from daemon.offline import dataset
from daemon.offline.dataset import Reading
from daemon.offline.encoders import TRAIN, FreshSizes
from daemon.offline.encoders import sides as sides_of
from daemon.offline.gallery import Gallery
from daemon.offline.parts import Split
from daemon.offline.results import examples_of
from daemon.offline.train_sides import Sides, how_trained, trained_sides
from daemon.wire.paired_event import EventLimits
from model.baselines.joint import JointRecipe
from model.evaluate import recorded
from model.evaluate.examples import Example
from model.evaluate.recorded import TestPlan
from model.evaluate.scoring import Figures
from model.meta import distributed
from model.meta.encoders.training import EncodersRecipe
from model.meta.episodes import EpisodeSource
from model.meta.recipe import Recipe
from model.meta.splits import Fractions, part_of
from model.meta.state import Progress
from model.meta.streams import DEFAULT_FRACTIONS, RecordedEpisodes, RecordedStream
from model.meta.training import Data, Saving, Trained, facts_of, train
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init
from model.values.errors import BadCheckpoint, BadData, BadMetaInit

SHOWN = ("gated", "theta", "ridge")
"""Methods whose retrievals are shown side by side."""
ENCODERS_EVERY = 50
"""Steps of an encoder training that a crash costs at most."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to train, on what."""

    events: tuple[Path, ...]
    name: str
    recipe: Recipe
    limits: EventLimits
    parent: Path | None = None
    """Go on from this θ, and use its encoders."""
    source_encoder: str | None = None
    target_encoder: str | None = None
    fresh: FreshSizes = field(default_factory=FreshSizes)
    encoders: EncodersRecipe = field(default_factory=EncodersRecipe)
    """Of encoders that are trained first."""
    split_labels: bool = False
    """Keep labels apart too: what is judged on shows no label that was trained on."""
    temporal: bool = False
    """The query is newer than the support, as in the daemon; else any pairs."""
    fractions: Fractions = DEFAULT_FRACTIONS
    saving: Saving | None = None
    test: TestPlan = field(default_factory=TestPlan)

    @property
    def split(self) -> Split:
        """Of streams and labels."""
        return Split(self.recipe.seed, self.fractions, self.split_labels)

    @property
    def joint(self) -> JointRecipe:
        """For the baselines: the same mapping, no more steps than θ gets."""
        usual, recipe = JointRecipe(), self.recipe
        return JointRecipe(
            steps=min(usual.steps, recipe.steps),
            hidden_dim=recipe.hidden_dim,
            activation=recipe.activation,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """A θ, how its training went, and what it scores."""

    theta: MetaInit
    progress: Progress
    sides: Sides
    reading: Reading
    streams: dict[str, int]
    """How many streams were for training, validation and test."""
    figures: tuple[Figures, ...]
    examples: tuple[Example, ...]

    @property
    def facts(self) -> dict[str, str]:
        """In words, for people."""
        read, went = self.reading, self.progress
        left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(read.left_out.items()))
        best = f", the best after {went.best_step}" if went.best_loss is not None else ""
        return {
            "θ": f"{self.theta.version} ({self.theta.content_hash})",
            "maps": f"{self.theta.source_modality} ({self.theta.source_dim}) to "
            f"{self.theta.target_modality} ({self.theta.target_dim})",
            "generator, learner": f"{self.theta.generator.kind}, {self.theta.learner.kind}",
            "data": f"{read.pairs} pairs; left out: {left_out or 'none'}",
            "first faults": "; ".join(read.examples) or "none",
            "encoders": how_trained(self.sides),
            "streams": ", ".join(f"{n} {name}" for name, n in self.streams.items()),
            "training": f"{went.step} outer steps ({went.ended}){best}; {went.skipped} skipped",
        }


def meta_train(
    wanted: Wanted,
    note: Callable[[str], None] = lambda line: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_encoder_step: Callable[[Progress], None] = lambda progress: None,
) -> Result | None:
    """Train, and judge; None on every process of torchrun but the first, which alone judges.

    Raises Misconfigured for data, a θ or a checkpoint that cannot be used.
    """
    try:
        with distributed.process_group():
            return _meta_train(wanted, note, on_step, on_encoder_step)
    except (BadData, BadMetaInit, BadCheckpoint) as e:
        raise Misconfigured(str(e)) from e


def _meta_train(
    wanted: Wanted,
    note: Callable[[str], None],
    on_step: Callable[[Progress], None],
    on_encoder_step: Callable[[Progress], None],
) -> Result | None:
    parent = None if wanted.parent is None else load_meta_init(wanted.parent)
    reading = Reading()
    gallery = Gallery(lambda name: part_of(name, wanted.recipe.seed, wanted.fractions) == "test")
    sides = _sides(wanted, note, on_encoder_step)
    streams = dataset.encoded(
        dataset.raw_pairs(wanted.events, wanted.limits, reading),
        sides.source.encoder,
        sides.target.encoder,
        reading,
        gallery.keep,
    )
    note(f"{reading.pairs} pairs of {len(streams)} streams read")
    parts = wanted.split(streams, note)
    cut = wanted.recipe.cut(wanted.temporal)
    source = RecordedEpisodes(parts.train, cut)
    validation = RecordedEpisodes(parts.validation, cut) if parts.validation else None
    identity = {"train": source.content_hash}
    identity |= {} if validation is None else {"validation": validation.content_hash}
    trained = train(
        Data(source, validation, identity), wanted.recipe, parent, wanted.saving, on_step
    )
    if distributed.rank() > 0:
        return None
    theta = _theta(trained, wanted, sides, parent)
    note(f"trained {theta.version}; judging on {len(parts.test)} test streams")
    figures, examples = _judged(theta, source, parts.test, wanted, gallery, note)
    return Result(
        _with_evaluation(theta, figures),
        trained.progress,
        sides,
        reading,
        {name: len(getattr(parts, name)) for name in ("train", "validation", "test")},
        figures,
        examples,
    )


def _sides(
    wanted: Wanted, note: Callable[[str], None], on_step: Callable[[Progress], None]
) -> Sides:
    """Both sides as the first pair has them; encoders that are wanted are trained."""
    reading = Reading()
    first = next(dataset.raw_pairs(wanted.events, wanted.limits, reading), None)
    if first is None:
        raise Misconfigured("the events files hold no usable pair" + _first_fault(reading))
    chosen = [wanted.source_encoder, wanted.target_encoder]
    if wanted.parent is not None:
        if TRAIN in chosen:
            raise Misconfigured("a θ to go on from goes on with its own encoders: train none")
        chosen = [given or _parents(wanted.parent, side) for side, given in enumerate(chosen)]
    source, target = sides_of(first, chosen[0], chosen[1], wanted.fresh)
    if not (source.to_train or target.to_train):
        return Sides(source, target)
    saving = wanted.saving
    if saving is not None:
        saving = Saving(saving.path.with_name(f"{saving.path.name}.encoders"), ENCODERS_EVERY)
    sides = trained_sides(
        Sides(source, target),
        dataset.raw_pairs(wanted.events, wanted.limits, Reading()),
        wanted.split,
        wanted.temporal,
        wanted.encoders,
        saving,
        on_step,
    )
    note(f"encoders: {how_trained(sides)}")
    return sides


def _parents(path: Path, side: int) -> str:
    theta = load_meta_init(path)
    has = (theta.source_encoder, theta.target_encoder)[side]
    return "none" if has is None else str(path)


def _first_fault(reading: Reading) -> str:
    return f"; the first fault: {reading.examples[0]}" if reading.examples else ""


def _theta(trained: Trained, wanted: Wanted, sides: Sides, parent: MetaInit | None) -> MetaInit:
    source, target = sides.source, sides.target
    encoders = {} if sides.trained is None else {"encoders": f"{wanted.encoders}, {wanted.fresh}"}
    return trained.parameters.meta_init(
        wanted.name,
        source.modality,
        target.modality,
        source.spec,
        target.spec,
        parent=None if parent is None else parent.version,
        facts={
            **facts_of(trained),
            "data": ", ".join(path.name for path in wanted.events),
            **encoders,
        },
    )


def _with_evaluation(theta: MetaInit, figures: Sequence[Figures]) -> MetaInit:
    """θ with what it scored among its facts, where operators find it: `adaptd meta-init show`."""
    if not figures:
        return theta
    rows: dict[int, dict[str, float]] = {}
    for row in figures:
        r_at_1 = round(row.measures["r_at_1"].mean, 3)
        rows.setdefault(row.pairs, {})[row.method] = r_at_1
    told = [{"pairs": pairs, "r_at_1": by_method} for pairs, by_method in rows.items()]
    return replace(theta, facts={**theta.facts, "evaluation": json.dumps(told)})


def _judged(
    theta: MetaInit,
    source: EpisodeSource,
    test: Sequence[RecordedStream],
    wanted: Wanted,
    gallery: Gallery,
    note: Callable[[str], None],
) -> tuple[tuple[Figures, ...], tuple[Example, ...]]:
    try:
        episodes = recorded.episodes_of(test, wanted.test)
    except BadData as e:  # the training was not for nothing
        note(str(e))
        return (), ()
    compared = recorded.meta_learned(recorded.engine_for(theta, wanted.test))
    compared |= recorded.closed_forms()
    compared |= recorded.trained(source, wanted.joint, wanted.recipe.seed)
    shown = {name: compared[name] for name in SHOWN}
    examples = examples_of(episodes[max(episodes)], shown, gallery)
    return tuple(recorded.compare(compared, episodes)), tuple(examples)
