"""The messages of the publish step: what a verdict and a dead letter look like on Kafka. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.turn.ports import AdaptationEngine
from daemon.turn.report import Verdict
from daemon.wire import adapted_mapping, dead_letter
from daemon.wire.adapted_mapping import AdaptedMapping, Facts
from daemon.wire.dead_letter import DeadLetter
from daemon.wire.mapping_body import MappingBody, MappingForm, full_body, full_nbytes, lowrank_body
from daemon.wire.record import Message
from model.values.episode import Adaptation
from model.values.gate import Outcome
from model.values.low_rank import LowRank, in_half

STARTS_AT_THETA = ("mlp", "adversarial")
"""The generators whose unadapted mapping is the one in θ's file (`model.inner.generators`)."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of the topics that messages go to, and of the one that events come from."""

    events: str
    mappings: str
    dead_letters: str


@dataclass(frozen=True, slots=True)
class PublicationContext:
    """The facts of a mapping that its verdict does not know."""

    epoch: int
    """The epoch of the tenure that publishes it."""
    event_time_ms: int
    """When the newest pair happened (ms, UTC)."""
    now_ms: int
    turn: str


class MessageBuilder:
    """Makes messages for these topics, in the form asked for, of the θ that is served. It sends
    nothing: that is the Outbox's part."""

    def __init__(
        self,
        topics: Topics,
        engine: AdaptationEngine,
        dead_letter_max_bytes: int,
        form: MappingForm = MappingForm(),  # noqa: B008 - it is frozen
    ) -> None:
        self._topics = topics
        self._engine = engine
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._form = form
        dims = (engine.theta.source_dim, engine.theta.hidden_dim, engine.theta.target_dim)
        self._full_nbytes = full_nbytes(*dims, form.dtype)
        self._fallback = self._unadapted()

    def dead_letter(self, letter: DeadLetter) -> Message:
        """Returns the record as it came, with the reason why it cannot be used."""
        return dead_letter.encode_dead_letter(
            letter,
            topic=self._topics.dead_letters,
            from_topic=self._topics.events,
            max_bytes=self._dead_letter_max_bytes,
        )

    def mapping(self, verdict: Verdict, context: PublicationContext) -> Message:
        """Returns θ′ or the linear map, whichever the gate chose, or θ marked as the fallback."""
        adaptation, theta = verdict.adaptation, self._engine.theta
        body = self._body(verdict)
        linear = verdict.outcome is Outcome.RIDGE
        facts = Facts(
            format=body.format,
            kind="mlp",
            activation="none" if linear else theta.activation,
            output_activation="none" if linear else theta.output_activation,
            source_modality=theta.source_modality,
            target_modality=theta.target_modality,
            source_dim=theta.source_dim,
            hidden_dim=len(body.tensors["b1"]) if linear else theta.hidden_dim,
            target_dim=theta.target_dim,
            stream=verdict.stream.key,
            outcome=verdict.outcome,
            epoch=context.epoch,
            version=verdict.version,
            topic=self._topics.events,
            partition=verdict.stream.partition,
            meta_init=theta.version,
            meta_init_hash=theta.content_hash,
            generator=theta.generator,
            learner=theta.learner,
            encoder=theta.encoder_version,
            loss=theta.loss,
            support_pairs=verdict.support_pairs,
            query_pairs=verdict.query_pairs,
            support_loss_before=adaptation.support_loss_before,
            support_loss_after=adaptation.support_loss_after,
            query_loss_before=adaptation.query_loss_before,
            query_loss_after=adaptation.query_loss_after,
            query_loss_ridge=adaptation.query_loss_ridge,
            candidate=adaptation.winner.value,
            ahead_squared=adaptation.ahead_squared,
            ahead_cosine=adaptation.ahead_cosine,
            event_time_ms=context.event_time_ms,
            published_at_ms=context.now_ms,
            turn=context.turn,
            encoding=body.encoding,
            dtype=body.dtype,
            content_hash=body.content_hash,
            window_since=verdict.window_since,
        )
        value, headers = adapted_mapping.encode_mapping(AdaptedMapping(body.tensors, facts))
        return Message(self._topics.mappings, verdict.stream.key.encode(), value, headers)

    def _body(self, verdict: Verdict) -> MappingBody:
        match verdict.outcome:
            case Outcome.ADAPTED:
                return self._adapted(verdict.adaptation)
            case Outcome.RIDGE:
                assert verdict.adaptation.ridge is not None  # or the gate would not have said so
                return full_body(verdict.adaptation.ridge, self._form.dtype, self._engine.to_half)
            case _:
                return self._fallback

    def _adapted(self, adaptation: Adaptation) -> MappingBody:
        """Returns θ′ as factors if that is asked for, possible and smaller, or else whole."""
        factored = adaptation.factored if self._form.encoding == "lowrank" else None
        low_rank = factored() if factored is not None else None
        body = self._factors(low_rank) if low_rank is not None else None
        return body or full_body(adaptation.tensors, self._form.dtype, self._engine.to_half)

    def _factors(self, low_rank: LowRank) -> MappingBody | None:
        factors = low_rank.factors()
        halved = self._form.dtype == "float16"
        stored = in_half(factors, self._engine.to_half) if halved else factors
        if sum(tensor.nbytes for tensor in stored.values()) >= self._full_nbytes:
            return None
        return lowrank_body(stored, self._form.dtype, self._engine.theta.content_hash)

    def _unadapted(self) -> MappingBody:
        """Returns θ unadapted, which is the same for every stream; as no factors at all where
        readers can start from θ's own file."""
        engine, form = self._engine, self._form
        if form.encoding == "lowrank" and engine.theta.generator in STARTS_AT_THETA:
            return lowrank_body({}, form.dtype, engine.theta.content_hash)
        return full_body(engine.theta_mapping(), form.dtype, engine.to_half)
