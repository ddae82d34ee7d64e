"""The publish step's messages: what a verdict and a dead letter look like on Kafka. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.turn.ports import Engine
from daemon.turn.report import Verdict
from daemon.wire import adapted_mapping, dead_letter
from daemon.wire.adapted_mapping import AdaptedMapping, Facts
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.mapping_body import Body, Form, full, full_nbytes, lowrank
from daemon.wire.record import Message
from model.values.episode import Adaptation
from model.values.gate import Outcome
from model.values.low_rank import LowRank, in_half

STARTS_AT_THETA = ("mlp", "adversarial")
"""Generators whose unadapted mapping is the one in θ's file (`model.inner.generators`)."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics' names."""

    events: str
    mappings: str
    dead_letters: str


@dataclass(frozen=True, slots=True)
class Occasion:
    """When and by whose authority a mapping is published."""

    epoch: int
    event_time_ms: int
    now_ms: int
    turn: str


class Outlet:
    """Makes messages, knowing the topics, their form, and the θ that is served."""

    def __init__(
        self,
        topics: Topics,
        engine: Engine,
        dead_letter_max_bytes: int,
        form: Form = Form(),  # noqa: B008 - it is frozen
    ) -> None:
        self._topics = topics
        self._engine = engine
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._form = form
        dims = (engine.source_dim, engine.hidden_dim, engine.target_dim)
        self._full_nbytes = full_nbytes(*dims, form.dtype)
        self._theta = self._fallback()

    def dead_letter(self, letter: DeadLetter) -> Message:
        """The record as it came, with the reason it was put aside."""
        return dead_letter.encode(
            letter,
            topic=self._topics.dead_letters,
            from_topic=self._topics.events,
            max_bytes=self._dead_letter_max_bytes,
        )

    def mapping(self, verdict: Verdict, occasion: Occasion) -> Message:
        """θ′ or ridge, whichever the gate let through, else θ marked as the fallback."""
        adaptation, engine = verdict.adaptation, self._engine
        body = self._body(verdict)
        linear = verdict.outcome is Outcome.RIDGE
        facts = Facts(
            format=body.format,
            kind="mlp",
            activation="none" if linear else engine.activation,
            output_activation="none" if linear else engine.output_activation,
            source_modality=engine.source_modality,
            target_modality=engine.target_modality,
            source_dim=engine.source_dim,
            hidden_dim=len(body.tensors["b1"]) if linear else engine.hidden_dim,
            target_dim=engine.target_dim,
            stream=verdict.stream.key,
            outcome=verdict.outcome,
            epoch=occasion.epoch,
            version=verdict.version,
            topic=self._topics.events,
            partition=verdict.stream.partition,
            meta_init=engine.meta_init_version,
            meta_init_hash=engine.meta_init_hash,
            generator=engine.generator,
            learner=engine.learner,
            encoder=engine.encoder_version,
            loss=engine.loss,
            support_pairs=verdict.support_pairs,
            query_pairs=verdict.query_pairs,
            support_loss_before=adaptation.support_loss_before,
            support_loss_after=adaptation.support_loss_after,
            query_loss_before=adaptation.query_loss_before,
            query_loss_after=adaptation.query_loss_after,
            query_loss_ridge=adaptation.query_loss_ridge,
            event_time_ms=occasion.event_time_ms,
            published_at_ms=occasion.now_ms,
            turn=occasion.turn,
            encoding=body.encoding,
            dtype=body.dtype,
            content_hash=body.content_hash,
        )
        value, headers = adapted_mapping.encode(AdaptedMapping(body.tensors, facts))
        return Message(self._topics.mappings, verdict.stream.key.encode(), value, headers)

    def _body(self, verdict: Verdict) -> Body:
        match verdict.outcome:
            case Outcome.ADAPTED:
                return self._adapted(verdict.adaptation)
            case Outcome.RIDGE:
                assert verdict.adaptation.ridge is not None  # or the gate would not have said so
                return full(verdict.adaptation.ridge, self._form.dtype, self._engine.to_half)
            case _:
                return self._theta

    def _adapted(self, adaptation: Adaptation) -> Body:
        """As factors where that was asked for, can be had and is smaller."""
        factored = adaptation.factored if self._form.encoding == "lowrank" else None
        body = self._factors(factored()) if factored is not None else None
        return body or full(adaptation.tensors, self._form.dtype, self._engine.to_half)

    def _factors(self, low_rank: LowRank) -> Body | None:
        factors = low_rank.factors()
        halved = self._form.dtype == "float16"
        stored = in_half(factors, self._engine.to_half) if halved else factors
        if sum(tensor.nbytes for tensor in stored.values()) >= self._full_nbytes:
            return None
        return lowrank(stored, self._form.dtype, self._engine.meta_init_hash)

    def _fallback(self) -> Body:
        """θ unadapted, the same every time: no factors at all, where readers have it."""
        engine, form = self._engine, self._form
        if form.encoding == "lowrank" and engine.generator in STARTS_AT_THETA:
            return lowrank({}, form.dtype, engine.meta_init_hash)
        return full(engine.theta_mapping(), form.dtype, engine.to_half)
