"""The table "Spoken names": what voices never heard say, mapped into tenants' spaces.

N = pairs of a stream (one of each concept), D = source dim

A stream is a tenant whose events pair a concept's name, as one voice says it in one language, with
the concept's vector in the tenant's space. The θ is one that was meta-trained on pictures: sounds
come to the same place of the universal embedding, so it only gets another encoder.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from model.baselines.procrustes import fit_procrustes
from model.baselines.ridge import fit_ridge
from model.baselines.shared import FirstDims, OnSharedFeatures
from model.emoji.spoken import CONCEPTS, HELD_OUT_VOICES, SPOKEN_LANGUAGES, said_by, spoken_concepts
from model.emoji.tables import SPOKEN
from model.emoji.tenants import TENANT_SEED, Tenant
from model.emoji.train_sounds import heard
from model.encoders.audio import AudioEncoder
from model.evaluate import comparison, methods
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.result_table import ResultRow, ResultTable
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit
from model.theta.part import PartSpec

SPOKEN_TITLE = "Spoken names, voices never heard: low-rank tenants, 32 dimensions"


def with_ears(theta: MetaInit, encoder: PartSpec) -> MetaInit:
    """Return a θ that reads pictures as one that hears."""
    version = f"{theta.version}-spoken"
    return replace(theta, version=version, source_modality="audio", source_encoder=encoder)


def judge_spoken(
    theta: MetaInit,
    encoder: PartSpec,
    plan: MetaTestPlan,
    languages: tuple[str, ...] = SPOKEN_LANGUAGES,
    concepts: int = CONCEPTS,
) -> ResultTable:
    """Judge θ, with this audio encoder, beside closed forms. Raises BadData where espeak-ng is not
    installed."""
    began = time.process_time()
    theta = with_ears(theta, encoder)
    streams = list(_streams(theta, encoder, languages, concepts))
    episodes = comparison.episodes_of(streams, plan)
    first = FirstDims(theta.target_dim)
    baselines = comparison.closed_form_methods() | {
        "ridge on first dims": methods.fitted(OnSharedFeatures(first, fit_ridge).fit),
        "Procrustes on first dims": methods.fitted(OnSharedFeatures(first, fit_procrustes).fit),
    }
    learned = comparison.meta_learned(comparison.engine_for(theta, plan))
    figures = comparison.compare(learned | baselines, episodes)
    rows = [ResultRow(theta.version if f.method in learned else None, f) for f in figures]
    return ResultTable(
        SPOKEN,
        SPOKEN_TITLE,
        len(streams),
        tuple(rows),
        notes=(f"voices {', '.join(HELD_OUT_VOICES)} of espeak-ng; {', '.join(languages)}",),
        cpu_s=time.process_time() - began,
    )


def _streams(
    theta: MetaInit, encoder: PartSpec, languages: tuple[str, ...], count: int
) -> Iterator[RecordedStream]:
    ears, concepts = AudioEncoder(encoder, torch.device("cpu")), spoken_concepts(count)
    labels, times_N = tuple(map(str, concepts)), np.zeros(len(concepts), np.int64)
    for number, (language, voice) in enumerate(product(languages, HELD_OUT_VOICES)):
        x_ND = ears.encode(heard(ears, said_by(voice, language, concepts))).numpy()
        targets = Tenant(TENANT_SEED + number, "low-rank", theta.target_dim).targets()
        yield RecordedStream(f"{language}+{voice}", x_ND, targets[concepts], times_N, labels)
