"""The table "Pairs of embeddings": vectors of unit norm on both sides, by a θ never meta-trained.

N = pairs of a stream (one of each concept), S = support pairs, Q = query pairs, D = source dim,
E = target dim, R = rows (concepts)

What a newcomer brings who pairs two embedding spaces. The vectors are those of the shipped encoders
and of the concept embedding; nothing about the pairs is synthetic. Each query is to find its own
target among those of 128 concepts that were not learned from.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from model.baselines.procrustes import fit_procrustes
from model.emoji import drawings as emoji
from model.emoji import names as emoji_names
from model.emoji import streams as emoji_streams
from model.emoji.streams import FeatureCache
from model.emoji.tables import EMBEDDINGS
from model.evaluate import comparison
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.data_rows import DataCell, DataRow, data_cell
from model.evaluate.digits import ridge_of_window
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.methods import Method, Outputs
from model.evaluate.result_table import ResultTable
from model.evaluate.scoring import recalls_at_1
from model.meta.fresh import fresh_theta_of_kind
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit
from model.values.arrays import FloatArray

EMBEDDINGS_TITLE = "Pairs of embeddings of unit norm, a new θ"
VENDORS = ("noto", "twemoji", "noto-v1", "fluent-3d", "fluent-emoji-flat")
"""Drawings of one are paired with those of the next, and those of all with concepts."""
TRANSLATIONS = (
    ("pt-PT", "es"),
    ("uk", "ru"),
    ("hu", "de"),
    ("ms", "id"),
    ("zu", "xh"),
    ("en", "fr"),
)
HIDDEN_DIM = 128
PROCRUSTES = "procrustes"

Embedded = Mapping[int, FloatArray]
"""Unit vectors by concept."""


def judge_embeddings(
    thetas: Mapping[str, MetaInit],
    cache: FeatureCache,
    plan: MetaTestPlan,
    notes: Sequence[str] = (),
) -> ResultTable:
    """Return a row for each kind of pairs whose encoders are there. `notes` say which θs are
    missing."""
    began = time.process_time()
    made, told, streams = [], list(notes), 0
    for name, found in _kinds(thetas, cache).items():
        dims = (found[0].x_ND.shape[1], HIDDEN_DIM, found[0].y_NE.shape[1])
        engine = comparison.engine_for(fresh_theta_of_kind(dims, seed=plan.seed), plan)
        compared = comparison.meta_learned(engine) | {
            "ridge": ridge_of_window,
            PROCRUSTES: procrustes_of_window,
        }
        cells = {
            pairs: _cell(compared, pairs, group)
            for pairs, group in comparison.episodes_of(found, plan).items()
        }
        made.append(DataRow("new-theta", name, tuple(cell for cell, _ in cells.values())))
        told.append(_procrustes_note(name, {pairs: r for pairs, (_, r) in cells.items()}))
        streams += len(found)
    told.append("ridge, Procrustes: on all pairs of the window; ridge's penalty by leave-one-out")
    return ResultTable(
        EMBEDDINGS,
        EMBEDDINGS_TITLE,
        streams,
        notes=tuple(told),
        data_rows=tuple(made),
        cpu_s=time.process_time() - began,
    )


def procrustes_of_window(episodes: Sequence[MetaTestEpisode]) -> Outputs:
    """Fit orthogonal Procrustes about 0 on each whole window, and return its outputs."""
    return [
        fit_procrustes(
            np.concatenate([e.x_SD, e.x_gate_ND]), np.concatenate([e.y_SE, e.y_gate_NE])
        )(e.x_QD)
        for e in episodes
    ]


def _kinds(thetas: Mapping[str, MetaInit], cache: FeatureCache) -> dict[str, list[RecordedStream]]:
    kinds = {}
    if "emoji-lowrank" in thetas:
        drawn = {vendor: _drawn(thetas["emoji-lowrank"], cache, vendor) for vendor in VENDORS}
        concepts = _unit(emoji.universal())
        kinds["picture to picture"] = [
            paired_stream(f"{one} to {other}", drawn[one], drawn[other])
            for one, other in zip(VENDORS, (*VENDORS[1:], VENDORS[0]), strict=True)
        ]
        kinds["picture to concept"] = [
            paired_stream(vendor, drawn[vendor], dict(enumerate(concepts))) for vendor in VENDORS
        ]
    if "emoji-names" in thetas:
        theta, languages = thetas["emoji-names"], sorted({x for pair in TRANSLATIONS for x in pair})
        named = {language: _named(theta, cache, language) for language in languages}
        kinds["name to name"] = [
            paired_stream(f"{one} to {other}", named[one], named[other])
            for one, other in TRANSLATIONS
        ]
    return kinds


def _drawn(theta: MetaInit, cache: FeatureCache, vendor: str) -> Embedded:
    concepts_N = emoji.drawn_by(vendor, "train")
    sheet = emoji.sheet(vendor)[concepts_N]
    vectors_ND = _unit(cache.pictures(theta, f"{vendor} train 0.0", sheet))
    return dict(zip(concepts_N.tolist(), vectors_ND, strict=True))


def _named(theta: MetaInit, cache: FeatureCache, language: str) -> Embedded:
    concepts_N = np.array(emoji_names.concepts_of("train"))
    nothing_ND = np.zeros((len(concepts_N), 1), np.float32)
    (stream,) = emoji_streams.language_streams(cache, theta, concepts_N, nothing_ND, [language])
    labels = [int(label) for label in stream.labels or ()]
    return dict(zip(labels, _unit(stream.y_NE), strict=True))


def paired_stream(name: str, sources: Embedded, targets: Embedded) -> RecordedStream:
    """Make a stream with a pair for every concept that both sides have."""
    shared = [concept for concept in sources if concept in targets]
    return RecordedStream(
        name,
        np.stack([sources[concept] for concept in shared]),
        np.stack([targets[concept] for concept in shared]),
        np.zeros(len(shared), np.int64),
        tuple(map(str, shared)),
    )


def _unit(vectors_RE: FloatArray) -> FloatArray:
    return np.asarray(vectors_RE / np.linalg.norm(vectors_RE, axis=1, keepdims=True), np.float32)


def _cell(
    compared: Mapping[str, Method], pairs: int, episodes: Sequence[MetaTestEpisode]
) -> tuple[DataCell, float]:
    """The cell, and R@1 of Procrustes."""
    found = {name: recalls_at_1(run, episodes) for name, run in compared.items()}
    procrustes = float(np.mean(found.pop(PROCRUSTES)))
    return data_cell(pairs, [e.stream for e in episodes], found), procrustes


def _procrustes_note(name: str, recalls: Mapping[int, float]) -> str:
    listed = " / ".join(f"{recall:.3f}".removeprefix("0") for recall in recalls.values())
    return f"orthogonal Procrustes, {name}: {listed}"
