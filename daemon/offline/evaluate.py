"""Evaluates a θ, beside baselines, on recorded streams."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from daemon.errors import Misconfigured
from daemon.offline import dataset
from daemon.offline.dataset import RawPair, Reading
from daemon.offline.gallery import Gallery, gallery_examples
from daemon.wire.paired_event import EventLimits
from model.baselines.joint import JointRecipe
from model.encoders.build import encoder_from
from model.evaluate import comparison
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.result_table import ResultRow, ResultTable
from model.meta.episodes import EpisodeSizes
from model.meta.recorded_streams import RecordedEpisodes, RecordedStream
from model.meta.splits import Part, part_of, select
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import SHIPPED, load_meta_init, shipped
from model.values.errors import BadData, BadMetaInit

JudgedPart = Literal["all", "train", "validation", "test"]
SHOWN = ("gated", "theta", "Procrustes on shared", "ridge")
"""Methods whose retrievals are shown side by side."""


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Which θ to judge, and on which streams."""

    events: tuple[Path, ...]
    limits: EventLimits
    meta_init: Path | None = None
    """The θ's file; None for the first shipped θ that fits the first pair."""
    part: JudgedPart = "all"
    """The part of meta-train's split, with the same seed, to judge on. Baselines that need training
    streams take those of the part `train`, unless it is judged on."""
    seed: int = 0
    extra_steps: int = 0
    plan: MetaTestPlan = field(default_factory=MetaTestPlan)
    joint: JointRecipe = field(default_factory=JointRecipe)


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The θ that was judged, the events that were read, and the figures."""

    theta: MetaInit
    reading: Reading
    table: ResultTable

    @property
    def facts(self) -> dict[str, str]:
        """Facts about θ and the data, as text for people."""
        read, theta = self.reading, self.theta
        left_out = ", ".join(f"{n} {reason}" for reason, n in sorted(read.left_out.items()))
        return {
            "θ": f"{theta.version} ({theta.content_hash})",
            "maps": f"{theta.source_modality} ({theta.source_dim}) to "
            f"{theta.target_modality} ({theta.target_dim})",
            "generator, learner": f"{theta.generator.kind}, {theta.learner.kind}",
            "data": f"{read.pairs} pairs; left out: {left_out or 'none'}",
            "first faults": "; ".join(read.examples) or "none",
        }


def evaluate_recorded(
    request: EvaluationRequest, note: Callable[[str], None] = lambda line: None
) -> EvaluationResult:
    """Judge θ and the baselines; `note` is called with lines about progress.

    Raises Misconfigured for files, a θ or data that cannot be used.
    """
    began = time.process_time()
    try:
        return _evaluate(request, note, began)
    except (BadData, BadMetaInit) as e:
        raise Misconfigured(str(e)) from e


def _evaluate(
    request: EvaluationRequest, note: Callable[[str], None], began: float
) -> EvaluationResult:
    reading = Reading()
    pairs = dataset.raw_pairs(request.events, request.limits, reading)
    first = next(pairs, None)
    if first is None:
        fault = f"; the first fault: {reading.examples[0]}" if reading.examples else ""
        raise Misconfigured(f"the events files hold no usable pair{fault}")
    theta = _theta(request.meta_init, first)
    gallery = Gallery(lambda stream: _is_in(stream, request.part, request.seed))
    cpu = torch.device("cpu")
    streams = dataset.encoded(
        itertools.chain([first], pairs),
        encoder_from(theta.source_encoder, theta.source_modality, theta.source_dim, cpu),
        encoder_from(theta.target_encoder, theta.target_modality, theta.target_dim, cpu),
        reading,
        gallery.keep,
    )
    judged = streams if request.part == "all" else select(streams, request.seed, (request.part,))
    note(f"{reading.pairs} pairs of {len(streams)} streams read; judging {len(judged)}")
    training = _training_streams(streams, request)
    table = _judge(theta, judged, training, request, gallery, began)
    return EvaluationResult(theta, reading, table)


def _judge(
    theta: MetaInit,
    streams: Sequence[RecordedStream],
    training: RecordedEpisodes | None,
    request: EvaluationRequest,
    gallery: Gallery,
    began: float,
) -> ResultTable:
    episodes = comparison.episodes_of(streams, request.plan)
    engine = comparison.engine_for(theta, request.plan, request.extra_steps)
    learned = comparison.meta_learned(engine)
    baselines = comparison.closed_form_methods()
    notes = []
    if training is None:
        notes.append("no training streams: baselines that need some are left out (see --part)")
    else:
        baselines |= comparison.trained_methods(training, request.joint, request.seed)
    compared = learned | baselines
    figures = comparison.compare(compared, episodes)
    shown = {m: compared[m] for m in SHOWN if m in compared}
    middle = sorted(episodes)[len(episodes) // 2]
    return ResultTable(
        "recorded",
        f"{theta.version} on recorded streams ({request.part})",
        len({e.stream for group in episodes.values() for e in group}),
        tuple(ResultRow(theta.version if f.method in learned else None, f) for f in figures),
        notes=tuple(notes),
        examples=tuple(gallery_examples(episodes[middle], shown, gallery)),
        cpu_s=time.process_time() - began,
    )


def _theta(path: Path | None, first: RawPair) -> MetaInit:
    if path is not None:
        return load_meta_init(path)
    for name in SHIPPED:
        try:
            theta = load_meta_init(shipped(name))
        except BadMetaInit:  # not shipped here, and another may fit
            continue
        if _takes(theta, first):
            return theta
    kinds = f"{first.source[0]} to {first.target[0]}"
    raise Misconfigured(f"no shipped θ maps {kinds} of these dimensions: name one by --meta-init")


def _takes(theta: MetaInit, pair: RawPair) -> bool:
    sides = (
        (theta.source_modality, theta.source_dim, theta.source_encoder, pair.source),
        (theta.target_modality, theta.target_dim, theta.target_encoder, pair.target),
    )
    for modality, dim, encoder, (has, content) in sides:
        if modality != has:
            return False
        if encoder is None and isinstance(content, np.ndarray) and content.shape != (dim,):
            return False
    return True


def _is_in(stream: str, part: JudgedPart, seed: int) -> bool:
    return part == "all" or part_of(stream, seed) == part


def _training_streams(
    streams: Sequence[RecordedStream], request: EvaluationRequest
) -> RecordedEpisodes | None:
    """Return None where the training part is judged on too, or is too small to train on."""
    if request.part in ("all", "train"):
        return None
    part: Part = "train"
    try:
        return RecordedEpisodes(select(streams, request.seed, (part,)), EpisodeSizes())
    except BadData:
        return None
