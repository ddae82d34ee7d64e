"""`adaptd evaluate` on events files: a θ, and the baselines, on recorded streams."""

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
from daemon.offline.gallery import Gallery
from daemon.offline.results import examples_of
from daemon.wire.paired_event import EventLimits
from model.baselines.joint import JointRecipe
from model.emoji.tables import COMMANDS
from model.encoders.build import encoder_from
from model.evaluate import recorded
from model.evaluate.judged import Judged, Row
from model.evaluate.recorded import TestPlan
from model.meta.cuts import Cut
from model.meta.splits import Part, part_of
from model.meta.streams import DEFAULT_FRACTIONS, RecordedEpisodes, RecordedStream, select
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.errors import BadData, BadMetaInit

Judge = Literal["all", "train", "validation", "test"]
BASELINES = ("theta", "Procrustes on shared", "ridge")
"""Whose retrievals are shown beside what the gate lets through."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to judge, on what."""

    events: tuple[Path, ...]
    limits: EventLimits
    meta_init: Path | None = None
    """None for the first shipped θ that fits the first pair."""
    part: Judge = "all"
    """Of the split that meta-train makes with the same seed; baselines that need training streams
    take those of the part `train`, unless they are judged on."""
    seed: int = 0
    extra_steps: int = 0
    plan: TestPlan = field(default_factory=TestPlan)
    joint: JointRecipe = field(default_factory=JointRecipe)


@dataclass(frozen=True, slots=True)
class Found:
    """What was judged, and how it did."""

    theta: MetaInit
    reading: Reading
    judged: Judged

    @property
    def facts(self) -> dict[str, str]:
        """In words, for people."""
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


def evaluate(wanted: Wanted, note: Callable[[str], None] = lambda line: None) -> Found:
    """Judge θ. Raises Misconfigured for files, a θ or data that cannot be used."""
    began = time.process_time()
    try:
        return _evaluate(wanted, note, began)
    except (BadData, BadMetaInit) as e:
        raise Misconfigured(str(e)) from e


def _evaluate(wanted: Wanted, note: Callable[[str], None], began: float) -> Found:
    reading = Reading()
    pairs = dataset.raw_pairs(wanted.events, wanted.limits, reading)
    first = next(pairs, None)
    if first is None:
        fault = f"; the first fault: {reading.examples[0]}" if reading.examples else ""
        raise Misconfigured(f"the events files hold no usable pair{fault}")
    theta = _theta(wanted.meta_init, first)
    gallery = Gallery(lambda stream: _is_in(stream, wanted.part, wanted.seed))
    cpu = torch.device("cpu")
    streams = dataset.encoded(
        itertools.chain([first], pairs),
        encoder_from(theta.source_encoder, theta.source_modality, theta.source_dim, cpu),
        encoder_from(theta.target_encoder, theta.target_modality, theta.target_dim, cpu),
        reading,
        gallery.keep,
    )
    judged = streams if wanted.part == "all" else select(streams, wanted.seed, (wanted.part,))
    note(f"{reading.pairs} pairs of {len(streams)} streams read; judging {len(judged)}")
    training = _training_streams(streams, wanted)
    return Found(theta, reading, _judge(theta, judged, training, wanted, gallery, began))


def _judge(
    theta: MetaInit,
    streams: Sequence[RecordedStream],
    training: RecordedEpisodes | None,
    wanted: Wanted,
    gallery: Gallery,
    began: float,
) -> Judged:
    episodes = recorded.episodes_of(streams, wanted.plan)
    engine = recorded.engine_for(theta, wanted.plan, wanted.extra_steps)
    learned = recorded.meta_learned(engine)
    baselines = recorded.closed_forms()
    notes = []
    if training is None:
        notes.append("no training streams: baselines that need some are left out (see --part)")
    else:
        baselines |= recorded.trained(training, wanted.joint, wanted.seed)
    compared = learned | baselines
    figures = recorded.compare(compared, episodes)
    shown = {m: compared[m] for m in ("gated", *BASELINES) if m in compared}
    middle = sorted(episodes)[len(episodes) // 2]
    return Judged(
        "recorded",
        f"{theta.version} on recorded streams ({wanted.part})",
        len({e.stream for group in episodes.values() for e in group}),
        tuple(Row(theta.version if f.method in learned else None, f) for f in figures),
        notes=tuple(notes),
        examples=tuple(examples_of(episodes[middle], shown, gallery)),
        cpu_s=time.process_time() - began,
    )


def _theta(path: Path | None, first: RawPair) -> MetaInit:
    if path is not None:
        return load_meta_init(path)
    for name in COMMANDS:
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


def _is_in(stream: str, part: Judge, seed: int) -> bool:
    return part == "all" or _part(stream, seed) == part


def _part(stream: str, seed: int) -> Part:
    return part_of(stream, seed, DEFAULT_FRACTIONS)


def _training_streams(streams: Sequence[RecordedStream], wanted: Wanted) -> RecordedEpisodes | None:
    """None where the training part is judged on too, or is too small to train on."""
    if wanted.part in ("all", "train"):
        return None
    part: Part = "train"
    try:
        return RecordedEpisodes(select(streams, wanted.seed, (part,)), Cut())
    except BadData:
        return None
