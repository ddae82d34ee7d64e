"""In what form a verdict is published: what was asked for, where the mapping can take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from daemon.turn.messages import STARTS_AT_THETA, MessageBuilder, PublicationContext, Topics
from daemon.turn.report import Verdict
from daemon.turn.streams import StreamId
from daemon.wire import adapted_mapping
from daemon.wire.adapted_mapping import AdaptedMapping, Dtype, Encoding, runnable
from daemon.wire.mapping_body import MappingForm, fits_half
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Candidate
from model.values.gate import Outcome
from model.values.low_rank import LowRank
from tests.daemon.lab import LinearEngine

S, D, E, H = 3, 30, 20, 8
RNG = np.random.default_rng(0)
FORMS: list[tuple[Encoding, Dtype]] = [
    ("full", "float32"),
    ("full", "float16"),
    ("lowrank", "float32"),
    ("lowrank", "float16"),
]


def normal(*shape: int) -> FloatArray:
    return RNG.standard_normal(shape).astype(np.float32)


THETA = {"w1": normal(H, D), "b1": normal(H), "w2": normal(E, H), "b2": normal(E)}
RIDGE = {"w1": normal(E, D), "b1": normal(E), "w2": normal(E, E), "b2": normal(E)}
LOW_RANK = LowRank(
    normal(S, D), normal(S, H), normal(H), normal(S, E), normal(H + 1, H + 1), normal(S, H + 1)
)
ADAPTATION = Adaptation(
    tensors=LOW_RANK.multiplied_out(THETA),
    support_loss_before=1.0,
    support_loss_after=0.1,
    query_loss_before=1.0,
    query_loss_after=0.2,
    finite=True,
    ridge=RIDGE,
    factored=lambda: LOW_RANK,
)
OCCASION = PublicationContext(epoch=7, event_time_ms=1, now_ms=2, turn="w-1")


class ThetaEngine(LinearEngine):
    """Of a two-layer θ; only its facts are asked for."""

    def __init__(self, generator: str = "mlp") -> None:
        self.theta = replace(
            LinearEngine.theta,
            content_hash="ab" * 32,
            source_dim=D,
            hidden_dim=H,
            target_dim=E,
            activation="gelu",
            generator=generator,
        )

    def theta_mapping(self) -> Mapping[str, FloatArray]:
        return THETA


def published(
    form: tuple[Encoding, Dtype],
    outcome: Outcome = Outcome.ADAPTED,
    adaptation: Adaptation = ADAPTATION,
    generator: str = "mlp",
) -> AdaptedMapping:
    topics = Topics("events", "mappings", "letters")
    messages = MessageBuilder(topics, ThetaEngine(generator), 900, MappingForm(*form))
    verdict = Verdict(StreamId(1, "s"), 41, S, 1, adaptation, outcome)
    message = messages.mapping(verdict, OCCASION)
    assert (message.topic, message.key) == ("mappings", b"s")
    mapping = adapted_mapping.decode_mapping(message.value or b"")
    assert (dict(message.headers)["adaptd-dtype"] or b"").decode() == mapping.facts.dtype
    return mapping


@pytest.mark.parametrize(
    ("winner", "outcome"),
    [
        (Candidate.ADAPTED, Outcome.ADAPTED),
        (Candidate.RIDGE, Outcome.RIDGE),
        (Candidate.PROCRUSTES, Outcome.RIDGE),
        (Candidate.THETA, Outcome.WORSE),
    ],
)
def test_a_record_says_which_candidate_won_and_by_what_evidence(
    winner: Candidate, outcome: Outcome
) -> None:
    adaptation = replace(ADAPTATION, winner=winner, ahead_squared=2.5, ahead_cosine=-0.25)
    facts = published(("full", "float32"), outcome, adaptation).facts
    assert (facts.candidate, facts.ahead_squared, facts.ahead_cosine) == (winner.value, 2.5, -0.25)


def form_of(mapping: AdaptedMapping) -> tuple[str, str]:
    return mapping.facts.encoding, mapping.facts.dtype


@pytest.mark.parametrize("form", FORMS)
def test_an_adapted_mapping_takes_the_form_that_was_asked_for(form: tuple[Encoding, Dtype]) -> None:
    mapping = published(form)
    assert form_of(mapping) == form
    for name, tensor in runnable(mapping, THETA).items():
        near = 1e-6 if form[1] == "float32" else 2e-3
        wanted = ADAPTATION.tensors[name]
        np.testing.assert_allclose(tensor, wanted, atol=near * abs(wanted).max())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_smaller_as_factors(dtype: Dtype) -> None:
    sizes = {
        encoding: sum(t.nbytes for t in published((encoding, dtype)).tensors.values())
        for encoding, _ in FORMS
    }
    assert sizes["lowrank"] < sizes["full"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_would_not_be_smaller_as_factors_is_published_whole(dtype: Dtype) -> None:
    long = LowRank(
        normal(50, D),
        normal(50, H),
        normal(H),
        normal(50, E),
        normal(H + 1, H + 1),
        normal(50, H + 1),
    )
    adaptation = replace(ADAPTATION, factored=lambda: long)
    assert form_of(published(("lowrank", dtype), adaptation=adaptation)) == ("full", dtype)


def test_without_factors_a_mapping_is_published_whole() -> None:
    adaptation = replace(ADAPTATION, factored=None)
    mapping = published(("lowrank", "float16"), adaptation=adaptation)
    assert form_of(mapping) == ("full", "float16")


@pytest.mark.parametrize("form", FORMS)
def test_ridge_is_published_whole(form: tuple[Encoding, Dtype]) -> None:
    mapping = published(form, Outcome.RIDGE)
    assert form_of(mapping) == ("full", form[1])
    assert (mapping.facts.hidden_dim, mapping.facts.activation) == (E, "none")
    for name, tensor in runnable(mapping).items():
        np.testing.assert_allclose(tensor, RIDGE[name], atol=2e-3)


@pytest.mark.parametrize("generator", STARTS_AT_THETA)
@pytest.mark.parametrize("form", FORMS)
def test_the_fallback_is_theta_and_as_factors_none(
    form: tuple[Encoding, Dtype], generator: str
) -> None:
    mapping = published(form, Outcome.WORSE, generator=generator)
    assert form_of(mapping) == form
    if form[0] == "lowrank":
        assert mapping.tensors == {}
    for name, tensor in runnable(mapping, THETA).items():
        np.testing.assert_allclose(tensor, THETA[name], atol=0 if form[1] == "float32" else 2e-3)


def test_a_fallback_that_is_not_in_the_file_of_theta_is_published_whole() -> None:
    mapping = published(("lowrank", "float32"), Outcome.WORSE, generator="attention")
    assert form_of(mapping) == ("full", "float32")


@pytest.mark.parametrize(
    "theta", [fresh_meta_init(6, 5, 4), load_meta_init(shipped("emoji-lowrank-maml"))]
)
def test_such_generators_leave_a_stream_without_pairs_at_the_file_of_theta(theta: MetaInit) -> None:
    assert theta.generator.kind in STARTS_AT_THETA
    unadapted = Engine(theta, "cpu").theta_mapping()
    assert all(np.array_equal(unadapted[name], t) for name, t in theta.mapping.items())


@pytest.mark.parametrize(
    ("name", "size", "held"),
    [
        ("w1", 7e4, False),
        ("b2", 7e4, False),
        ("w1", 65_504.0, True),
        ("w2", 1e-5, False),
        ("w2", 0.0, True),
        ("b1", 1e-5, True),
    ],
)
def test_what_float16_cannot_hold_is_published_in_float32(
    name: str, size: float, held: bool
) -> None:
    tensors = {n: t / abs(t).max() for n, t in ADAPTATION.tensors.items()}
    tensors[name] = tensors[name] * np.float32(size)
    assert fits_half(tensors) == held
    mapping = published(("full", "float16"), adaptation=replace(ADAPTATION, tensors=tensors))
    assert mapping.facts.dtype == ("float16" if held else "float32")
    made = runnable(mapping)
    for n, wanted in tensors.items():
        bound = 2**-11 * abs(wanted).max() + (2**-25 if n.startswith("b") else 0)
        assert abs(made[n] - wanted).max() <= bound


def test_tiny_and_large_factors_are_held_by_float16() -> None:
    low = replace(LOW_RANK, a_SH=LOW_RANK.a_SH * np.float32(1e-9), v_SG=LOW_RANK.v_SG * 1e6)
    mapping = published(
        ("lowrank", "float16"), adaptation=replace(ADAPTATION, factored=lambda: low)
    )
    assert form_of(mapping) == ("lowrank", "float16")
    wanted, made = low.multiplied_out(THETA), runnable(mapping, THETA)
    for name in wanted:
        np.testing.assert_allclose(made[name], wanted[name], atol=2e-3 * abs(wanted[name]).max())


@pytest.mark.parametrize("form", FORMS)
def test_the_same_mapping_has_the_same_hash(form: tuple[Encoding, Dtype]) -> None:
    assert published(form).facts.content_hash == published(form).facts.content_hash
    hashes = {published(each).facts.content_hash for each in FORMS}
    assert len(hashes) == len(FORMS)
