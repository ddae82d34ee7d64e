"""The publish step's messages: what a verdict and a dead letter look like on Kafka. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.ports import Engine, Message
from daemon.report import Verdict
from daemon.wire import adapted_mapping, dead_letter
from daemon.wire.adapted_mapping import AdaptedMapping, Facts, content_hash
from daemon.wire.dead_letter import DeadLetter
from model.episode import FloatArray
from model.gate import Outcome


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
    """Makes messages, knowing the topics and the θ that is served."""

    def __init__(self, topics: Topics, engine: Engine, dead_letter_max_bytes: int) -> None:
        self._topics = topics
        self._engine = engine
        self._dead_letter_max_bytes = dead_letter_max_bytes
        self._theta = engine.theta_mapping()

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
        tensors = self._tensors(verdict)
        linear = verdict.outcome is Outcome.RIDGE
        facts = Facts(
            kind="mlp",
            activation="none" if linear else engine.activation,
            output_activation="none" if linear else engine.output_activation,
            source_modality=engine.source_modality,
            target_modality=engine.target_modality,
            source_dim=engine.source_dim,
            hidden_dim=len(tensors["b1"]) if linear else engine.hidden_dim,
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
            content_hash=content_hash(tensors),
        )
        value, headers = adapted_mapping.encode(AdaptedMapping(tensors, facts))
        return Message(self._topics.mappings, verdict.stream.key.encode(), value, headers)

    def _tensors(self, verdict: Verdict) -> Mapping[str, FloatArray]:
        match verdict.outcome:
            case Outcome.ADAPTED:
                return verdict.adaptation.tensors
            case Outcome.RIDGE:
                assert verdict.adaptation.ridge is not None  # or the gate would not have said so
                return verdict.adaptation.ridge
            case _:
                return self._theta
