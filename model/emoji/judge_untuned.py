"""The table "Data that nobody tuned": θs on transformed emoji streams and on streams that change.

N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim, E = target dim

The pictures are the held-out vendor's, of concepts of the training split; they are encoded once.
What is published should be as good as θ unadapted and as ridge regression on any data.
"""

import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.baselines.ridge import fit_ridge
from model.emoji import drawings as emoji
from model.emoji import streams as emoji_streams
from model.emoji.moving_streams import (
    MOVING,
    SUPPORT_PAIRS,
    MovingData,
    SlidingEpisodes,
    changed_streams,
    episode_of_window,
    sliding_episodes,
    static_windows,
)
from model.emoji.streams import FeatureCache
from model.emoji.tables import UNTUNED
from model.emoji.tenants import LOW_RANK_DIM, ROTATION_DIM, Family
from model.emoji.transformations import TRANSFORMATIONS, Transformation
from model.evaluate import comparison, methods
from model.evaluate.comparison import SIZES, MetaTestPlan
from model.evaluate.data_rows import PUBLISHED, DataCell, DataRow, data_cell
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.methods import Method
from model.evaluate.result_table import ResultTable
from model.evaluate.scoring import recalls_at_1
from model.evaluate.watched import cuts_of, watched
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit

UNTUNED_TITLE = "Data that nobody tuned"
UNTUNED_THETAS: Mapping[str, Family] = {"emoji-lowrank": "low-rank", "emoji-both": "rotation"}
"""The θs that are judged, each on the family of tenants that is transformed for it."""
DIMS: Mapping[int, Family] = {LOW_RANK_DIM: "low-rank", ROTATION_DIM: "rotation"}
"""The family for another θ, by its target dimensions."""

Episodes = dict[int | None, list[MetaTestEpisode]]
"""Episodes by number of support pairs; those of a stream that changes under None."""


@dataclass(frozen=True, slots=True)
class UntunedOptions:
    """How large the table is."""

    tenants: int = 10
    episodes: int = 2
    """Episodes of each tenant at each size; tenants that change are read once."""
    sizes: tuple[int, ...] = SIZES
    every: int = 2
    """Windows of a stream that changes are judged after each such number of pairs."""
    static_tenants: int = 10
    """Tenants that do not change, on which false cuts of windows are counted."""
    seed: int = 0

    @property
    def plan(self) -> MetaTestPlan:
        """The plan by which episodes are cut."""
        return MetaTestPlan(self.sizes, self.episodes, seed=self.seed)


def judge_untuned(
    thetas: Mapping[str, MetaInit],
    cache: FeatureCache,
    options: UntunedOptions,
    notes: Sequence[str] = (),
) -> ResultTable:
    """Return a row for each θ and kind of data. `notes` say which θs are missing."""
    began = time.process_time()
    rows: list[DataRow] = []
    told = list(notes)
    for name, theta in thetas.items():
        rows += _rows(name, theta, cache, options)
        told.append(_static_note(name, theta, cache, options))
    return ResultTable(
        UNTUNED,
        UNTUNED_TITLE,
        options.tenants if rows else 0,
        notes=tuple(told),
        data_rows=tuple(rows),
        cpu_s=time.process_time() - began,
    )


def untuned_thetas(thetas: Mapping[str, MetaInit]) -> dict[str, MetaInit]:
    """Return those of the θs that the table judges: the shipped ones it names, or where there are
    none of these, every θ of a picture to a vector whose dimensions have a family of tenants."""
    named = {name: thetas[name] for name in UNTUNED_THETAS if name in thetas}
    return named or {
        name: theta
        for name, theta in thetas.items()
        if (theta.source_modality, theta.target_modality) == ("image", "vector")
        and theta.target_dim in DIMS
    }


def _rows(
    name: str, theta: MetaInit, cache: FeatureCache, options: UntunedOptions
) -> Iterator[DataRow]:
    streams = held_out_streams(name, theta, cache, options.tenants)
    compared = compared_methods(theta, options.plan)
    for transformation in TRANSFORMATIONS:
        episodes = transformed_episodes(streams, transformation, options.plan)
        if episodes:
            yield DataRow(name, transformation.name, _cells(compared, episodes))
    windows = compared_methods(theta, replace(options.plan, sizes=(SUPPORT_PAIRS,)))
    engine = comparison.engine_for(theta, replace(options.plan, sizes=(SUPPORT_PAIRS,)))
    for moving in MOVING:
        found = moving_episodes(streams, moving, options)
        own = {PUBLISHED: watched(engine, [each.before for each in found], options.every)}
        judged = [episode for each in found for episode in each.after]
        yield DataRow(name, moving.name, _cells(windows | own, {None: judged}))


def held_out_streams(
    name: str, theta: MetaInit, cache: FeatureCache, tenants: int
) -> list[RecordedStream]:
    """Return streams of tenants never trained on, with the held-out vendor's pictures of all
    concepts of the training split."""
    vendor = emoji.HELD_OUT_VENDOR
    concepts_N = emoji.drawn_by(vendor, "train")
    x_ND = cache.pictures(theta, f"{vendor} train 0.0", emoji.sheet(vendor)[concepts_N])
    family = UNTUNED_THETAS.get(name) or DIMS[theta.target_dim]
    return emoji_streams.tenant_streams(concepts_N, x_ND, family, theta.target_dim, tenants)


def _static_note(name: str, theta: MetaInit, cache: FeatureCache, options: UntunedOptions) -> str:
    """How many windows are cut of tenants that do not change."""
    engine = comparison.engine_for(theta, replace(options.plan, sizes=(SUPPORT_PAIRS,)))
    streams = held_out_streams(name, theta, cache, options.static_tenants)
    rng = _generator(options.seed, "static", name)
    found = cuts_of(engine, static_windows(streams, rng))
    return f"static tenants, {name}: {found.cuts} windows cut in {found.pairs:,} pairs"


def compared_methods(theta: MetaInit, plan: MetaTestPlan) -> dict[str, Method]:
    """Return θ's three methods and ridge regression."""
    engine = comparison.engine_for(theta, plan)
    return comparison.meta_learned(engine) | {"ridge": methods.fitted(fit_ridge)}


def transformed_episodes(
    streams: Sequence[RecordedStream], transformation: Transformation, plan: MetaTestPlan
) -> Episodes:
    """Cut the same episodes for every transformation, and return them transformed."""
    sizes = tuple(pairs for pairs in plan.sizes if pairs >= transformation.fewest_pairs)
    plan = replace(plan, sizes=sizes)
    if not sizes:
        return {}
    clean = comparison.episodes_of(streams, plan)
    if transformation.scope == "window":
        return {
            pairs: [_window_transformed(e, transformation, plan.seed, n) for n, e in enumerate(es)]
            for pairs, es in clean.items()
        }
    changed = [_stream_transformed(s, transformation, plan.seed) for s in streams]
    found = comparison.episodes_of(changed, plan)
    if transformation.scope == "stream":
        return dict(found.items())
    return {
        pairs: [replace(e, x_QD=c.x_QD, y_QE=c.y_QE) for e, c in zip(es, clean[pairs], strict=True)]
        for pairs, es in found.items()
    }


def moving_episodes(
    streams: Sequence[RecordedStream], moving: MovingData, options: UntunedOptions
) -> list[SlidingEpisodes]:
    """Return the windows that slide over the change of every stream."""
    rng = _generator(options.seed, moving.name, "")
    return [
        sliding_episodes(stream, targets_at, rng, options.every)
        for stream, targets_at in changed_streams(streams, moving, rng)
    ]


def _stream_transformed(
    stream: RecordedStream, transformation: Transformation, seed: int
) -> RecordedStream:
    rng = _generator(seed, transformation.name, stream.name)
    x_ND, y_NE = transformation.apply(stream.x_ND, stream.y_NE, rng)
    return replace(stream, x_ND=x_ND, y_NE=y_NE)


def _window_transformed(
    episode: MetaTestEpisode, transformation: Transformation, seed: int, number: int
) -> MetaTestEpisode:
    rng = _generator(seed, transformation.name, f"{episode.stream} {number}")
    x_ND = np.concatenate([episode.x_SD, episode.x_gate_ND])
    y_NE = np.concatenate([episode.y_SE, episode.y_gate_NE])
    x_ND, y_NE = transformation.apply(x_ND, y_NE, rng)
    return episode_of_window(episode.stream, x_ND, y_NE, episode.x_QD, episode.y_QE)


def _generator(seed: int, data: str, stream: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(data.encode()), zlib.crc32(stream.encode())])


def _cells(compared: Mapping[str, Method], episodes: Episodes) -> tuple[DataCell, ...]:
    return tuple(_cell(compared, pairs, group) for pairs, group in episodes.items())


def _cell(
    compared: Mapping[str, Method], pairs: int | None, episodes: Sequence[MetaTestEpisode]
) -> DataCell:
    found = {name: recalls_at_1(run, episodes) for name, run in compared.items()}
    return data_cell(pairs, [e.stream for e in episodes], found)
