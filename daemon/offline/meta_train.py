"""Meta-trains a θ on events files, and evaluates it on streams that it never saw.

N = pairs of a stream, D = source dim
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from daemon.errors import Misconfigured
from daemon.offline import dataset
from daemon.offline.dataset import Reading
from daemon.offline.encoder_training import how_trained, train_sides
from daemon.offline.gallery import Gallery, gallery_examples
from daemon.offline.sides import TRAIN, FreshSizes, Sides, sides_for
from daemon.wire.paired_event import EventLimits
from model.baselines.joint import JointRecipe
from model.evaluate import comparison
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.examples import Example
from model.evaluate.scoring import Figures
from model.evaluate.verdict import advice_for, baseline_verdict
from model.meta import distributed
from model.meta.encoders.training import EncodersRecipe
from model.meta.episodes import EpisodeSource
from model.meta.progress import Progress, Saving
from model.meta.recipe import Recipe
from model.meta.recipe_choice import RecipeChoice, expected_minutes
from model.meta.recorded_streams import RecordedEpisodes, RecordedStream
from model.meta.splits import DEFAULT_FRACTIONS, Fractions, Split, part_of
from model.meta.training import Data, MetaTrained, facts_of, train_theta
from model.theta.meta_init import MetaInit, usual_sources_of
from model.theta.meta_init_file import load_meta_init
from model.theta.part import PartSpec
from model.values.errors import BadCheckpoint, BadData, BadMetaInit

SHOWN = ("gated", "theta", "ridge")
"""Methods whose retrievals are shown side by side."""
ENCODERS_EVERY = 50
"""Steps between two checkpoints of a training of encoders: the most that a crash costs."""


@dataclass(frozen=True, slots=True)
class MetaTrainRequest:
    """A meta-training that is asked for: its recipe, events, encoders and split."""

    events: tuple[Path, ...]
    name: str
    recipe: Recipe
    """How θ is trained, if there is no `choice`; its seed splits the streams in any case."""
    limits: EventLimits
    choice: RecipeChoice | None = None
    """Chooses the recipe by the data's dims, with the same seed."""
    parent: Path | None = None
    """The file of a θ to go on from, with its encoders."""
    source_encoder: str | None = None
    """See `daemon.offline.sides.sides_for`."""
    target_encoder: str | None = None
    fresh: FreshSizes = field(default_factory=FreshSizes)
    encoders: EncodersRecipe = field(default_factory=EncodersRecipe)
    """How encoders are trained, where any are to be."""
    split_labels: bool = False
    """Split labels too, so that what is judged on shows no label that was trained on."""
    temporal: bool = False
    """Whether queries are newer than their supports, as in the daemon."""
    fractions: Fractions = DEFAULT_FRACTIONS
    saving: Saving | None = None
    test: MetaTestPlan = field(default_factory=MetaTestPlan)

    @property
    def split(self) -> Split:
        """How streams and labels are split."""
        return Split(self.recipe.seed, self.fractions, self.split_labels)

    @property
    def joint(self) -> JointRecipe:
        """How baselines are trained: the same mapping, no more steps than θ gets."""
        usual, recipe = JointRecipe(), self.recipe
        return JointRecipe(
            steps=min(usual.steps, recipe.steps),
            hidden_dim=recipe.hidden_dim,
            activation=recipe.activation,
        )


@dataclass(frozen=True, slots=True)
class MetaTrainResult:
    """A θ, the progress of its training, and its figures on test streams."""

    theta: MetaInit
    progress: Progress
    sides: Sides
    reading: Reading
    streams: dict[str, int]
    """Number of streams for training, validation and test."""
    figures: tuple[Figures, ...]
    examples: tuple[Example, ...]
    verdict: str
    """Whether θ beats the baselines, in a sentence."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts about θ, the data and the training, as text for people."""
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
            "verdict": self.verdict,
            "training": f"{went.step} outer steps ({went.ended}){best}; {went.skipped} skipped",
        }


def meta_train_recorded(
    request: MetaTrainRequest,
    note: Callable[[str], None] = lambda line: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_encoder_step: Callable[[Progress], None] = lambda progress: None,
) -> MetaTrainResult | None:
    """Train encoders where asked for, meta-train θ, and evaluate it on the test streams.

    `note` is called with lines about progress, the others after every step. Returns None on every
    process of torchrun but the first, which alone evaluates. Raises Misconfigured for data, a θ or
    a checkpoint that cannot be used, Diverged when a training did not stay finite.
    """
    try:
        with distributed.process_group():
            return _meta_train(request, note, on_step, on_encoder_step)
    except (BadData, BadMetaInit, BadCheckpoint) as e:
        raise Misconfigured(str(e)) from e


def _meta_train(
    request: MetaTrainRequest,
    note: Callable[[str], None],
    on_step: Callable[[Progress], None],
    on_encoder_step: Callable[[Progress], None],
) -> MetaTrainResult | None:
    parent = None if request.parent is None else load_meta_init(request.parent)
    reading = Reading()
    gallery = Gallery(lambda name: part_of(name, request.recipe.seed, request.fractions) == "test")
    sides = _sides(request, note, on_encoder_step)
    streams = dataset.encoded(
        dataset.raw_pairs(request.events, request.limits, reading),
        sides.source.encoder,
        sides.target.encoder,
        reading,
        gallery.keep,
    )
    note(f"{reading.pairs} pairs of {len(streams)} streams read")
    parts = request.split(streams, note)
    request = _with_recipe(request, sides.target.dim, parent, note)
    sizes = request.recipe.episode_sizes(request.temporal)
    source = RecordedEpisodes(parts.train, sizes)
    validation = RecordedEpisodes(parts.validation, sizes) if parts.validation else None
    identity = {"train": source.content_hash}
    identity |= {} if validation is None else {"validation": validation.content_hash}
    trained = train_theta(
        Data(source, validation, identity), request.recipe, parent, request.saving, on_step
    )
    if distributed.rank() > 0:
        return None
    usual = usual_sources_of(np.concatenate([stream.x_ND for stream in parts.train]))
    theta = _theta(trained, request, sides, usual, parent)
    note(f"trained {theta.version}; judging on {len(parts.test)} test streams")
    figures, examples = _judged(theta, source, parts.test, request, gallery, note)
    advice = advice_for(
        theta,
        streams=len(parts.train),
        ended_by_steps=trained.progress.ended == "steps",
        minutes=None if request.choice is None else request.choice.minutes,
    )
    return MetaTrainResult(
        _with_evaluation(theta, figures),
        trained.progress,
        sides,
        reading,
        {name: len(getattr(parts, name)) for name in ("train", "validation", "test")},
        figures,
        examples,
        baseline_verdict(figures, advice),
    )


def _with_recipe(
    request: MetaTrainRequest,
    target_dim: int,
    parent: MetaInit | None,
    note: Callable[[str], None],
) -> MetaTrainRequest:
    """Return the request with the recipe that it leaves to be chosen, and tell `note` what it is
    and how long it may take."""
    if request.choice is None:
        return request
    try:
        recipe = request.choice.recipe(target_dim, parent)
    except ValueError as e:
        raise Misconfigured(str(e)) from e
    expected = expected_minutes(recipe, target_dim)
    note(
        f"recipe: {recipe.generator}, {recipe.learner}, {recipe.hidden_dim} hidden units, "
        f"{recipe.shared_steps:,} steps for shared features and {recipe.steps:,} outer steps: "
        f"about {max(1.0, expected):.0f} min of a core at most, and it stops early"
    )
    return replace(request, recipe=recipe)


def _sides(
    request: MetaTrainRequest, note: Callable[[str], None], on_step: Callable[[Progress], None]
) -> Sides:
    """Return sides for pairs like the first one; encoders that are to be trained are trained."""
    reading = Reading()
    first = next(dataset.raw_pairs(request.events, request.limits, reading), None)
    if first is None:
        raise Misconfigured("the events files hold no usable pair" + _first_fault(reading))
    chosen = [request.source_encoder, request.target_encoder]
    if request.parent is not None:
        if TRAIN in chosen:
            raise Misconfigured("a θ to go on from goes on with its own encoders: train none")
        chosen = [given or _parents(request.parent, side) for side, given in enumerate(chosen)]
    sides = sides_for(first, chosen[0], chosen[1], request.fresh)
    if not (sides.source.to_train or sides.target.to_train):
        return sides
    saving = request.saving
    if saving is not None:
        saving = Saving(saving.path.with_name(f"{saving.path.name}.encoders"), ENCODERS_EVERY)
    sides = train_sides(
        sides,
        dataset.raw_pairs(request.events, request.limits, Reading()),
        request.split,
        request.temporal,
        request.encoders,
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


def _theta(
    trained: MetaTrained,
    request: MetaTrainRequest,
    sides: Sides,
    usual_sources: PartSpec | None,
    parent: MetaInit | None,
) -> MetaInit:
    source, target = sides.source, sides.target
    encoders = {} if sides.trained is None else {"encoders": f"{request.encoders}, {request.fresh}"}
    return trained.parameters.meta_init(
        request.name,
        source.modality,
        target.modality,
        source.spec,
        target.spec,
        usual_sources,
        parent=None if parent is None else parent.version,
        facts={
            **facts_of(trained),
            "data": ", ".join(path.name for path in request.events),
            **encoders,
        },
    )


def _with_evaluation(theta: MetaInit, figures: Sequence[Figures]) -> MetaInit:
    """Return θ with its figures among its facts, where `adaptd meta-init show` finds them."""
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
    request: MetaTrainRequest,
    gallery: Gallery,
    note: Callable[[str], None],
) -> tuple[tuple[Figures, ...], tuple[Example, ...]]:
    try:
        episodes = comparison.episodes_of(test, request.test)
    except BadData as e:  # the training was not for nothing
        note(str(e))
        return (), ()
    compared = comparison.meta_learned(comparison.engine_for(theta, request.test))
    compared |= comparison.closed_form_methods()
    compared |= comparison.trained_methods(source, request.joint, request.recipe.seed)
    shown = {name: compared[name] for name in SHOWN}
    examples = gallery_examples(episodes[max(episodes)], shown, gallery)
    return tuple(comparison.compare(compared, episodes)), tuple(examples)
