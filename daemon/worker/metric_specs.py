"""Every metric, once: name, unit, help.

No label names a stream: with 100,000 streams a scrape would take longer than its interval. The
figures of a stream are in the headers of its mappings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from daemon.canary.follow import Action
from daemon.errors import MalformedReason, RefusalReason, Service
from daemon.turn.report import STAGES, Replaced, ScoredMapping
from daemon.worker.timed_ports import CALLS, WAITS
from model.values.gate import Outcome

LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
CALL_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
LOSS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 100.0)

HistogramName = Literal[
    "event_to_publish_seconds",
    "turn_seconds",
    "turn_stage_seconds",
    "inner_loop_seconds",
    "batch_streams",
    "support_loss",
    "query_loss",
    "prequential_loss",
    "kafka_call_seconds",
    "redis_call_seconds",
]
CounterName = Literal[
    "events",
    "pairs",
    "dead_letters",
    "adaptations",
    "drift_suspected",
    "drift_confirmed",
    "prequential_pairs",
    "prequential_hits",
    "mappings_published",
    "windows_loaded",
    "windows_evicted",
    "windows_returned",
    "windows_restored",
    "unavailable",
    "away_seconds",
    "kafka_errors",
    "redis_errors",
    "cpu_throttled_seconds",
    "partitions_claimed",
    "partitions_lost",
    "meta_init_swaps",
    "meta_init_refusals",
    "shadow_adaptations",
    "shadow_seconds",
    "canary_refusals",
    "canary_actions",
    "device_faults",
    "logs_replaced",
    "records_gone",
    "streams_moved",
    "publications_without_latency",
    "log_lines_lost",
]
GaugeName = Literal[
    "consumer_lag_records",
    "oldest_owed_seconds",
    "assigned_partitions",
    "streams",
    "window_bytes",
    "memory_limit_bytes",
    "cpu_limit_cores",
    "gpu_memory_bytes",
    "gpu_memory_limit_bytes",
    "ready",
    "recovery_stalled",
    "meta_init_refused",
    "canary",
    "canary_streams",
    "canary_difference",
    "canary_log_e",
    "last_turn_timestamp_seconds",
]


class MetricSpec(NamedTuple):
    """A metric's help text, the name of its label if it has one, and a histogram's buckets."""

    help: str
    label: str | None = None
    buckets: Sequence[float] = ()


HISTOGRAMS: Mapping[HistogramName, MetricSpec] = {
    "event_to_publish_seconds": MetricSpec(
        "From the record time of the oldest event that a mapping is the first to reflect, until "
        "Kafka acknowledged the mapping.",
        buckets=LATENCY_S,
    ),
    "turn_seconds": MetricSpec("Length of a turn, without the wait for records.", buckets=STAGE_S),
    "turn_stage_seconds": MetricSpec("Length of each stage of a turn.", "stage", STAGE_S),
    "inner_loop_seconds": MetricSpec(
        "Length of adapting one batch: all steps of the inner loop, and the judging.",
        buckets=STAGE_S,
    ),
    "batch_streams": MetricSpec("Streams adapted in one batch.", buckets=BATCH),
    "support_loss": MetricSpec(
        "θ's loss (mse or cosine) on the support pairs, before (θ) and after (θ′) the inner loop.",
        "when",
        LOSS,
    ),
    "query_loss": MetricSpec(
        "θ's loss (mse or cosine) on the query pairs, from before anything learned from them, "
        "before (θ) and after (θ′) the inner loop, and of a linear map fitted to the support "
        "(ridge).",
        "when",
        LOSS,
    ),
    "prequential_loss": MetricSpec(
        "θ's loss (mse or cosine) on new pairs of sampled streams, before anything learned from "
        "them: of the mapping published last, of θ unadapted and of ridge regression.",
        "mapping",
        LOSS,
    ),
    "kafka_call_seconds": MetricSpec(
        "Time in which Kafka answered a call of the worker; polls, which wait, are not in it.",
        "call",
        CALL_S,
    ),
    "redis_call_seconds": MetricSpec(
        "Time in which Redis answered a call of the worker.", "call", CALL_S
    ),
}
COUNTERS: Mapping[CounterName, MetricSpec] = {
    "events": MetricSpec("Events read: accepted, or sent to the dead-letter topic.", "outcome"),
    "pairs": MetricSpec("Pairs of accepted events: new to their window, or replayed.", "outcome"),
    "dead_letters": MetricSpec("Events sent to the dead-letter topic, by reason.", "reason"),
    "adaptations": MetricSpec("Streams adapted, by the gate's outcome.", "outcome"),
    "prequential_pairs": MetricSpec(
        "New pairs of sampled streams whose target was searched for among recent ones.", "mapping"
    ),
    "prequential_hits": MetricSpec(
        "Those whose own target was the nearest; over prequential_pairs this is R@1.", "mapping"
    ),
    "drift_suspected": MetricSpec("Streams whose losses rose as after a change of the stream."),
    "drift_confirmed": MetricSpec(
        "Windows cut because a mapping adapted to the pairs since the change was clearly better."
    ),
    "mappings_published": MetricSpec("Mappings acknowledged by Kafka, by outcome.", "outcome"),
    "windows_loaded": MetricSpec("Windows read back from Redis."),
    "windows_evicted": MetricSpec("Windows removed from memory; Redis still has them."),
    "windows_returned": MetricSpec(
        "Evicted streams that came back into memory; many beside the events say that memory is too "
        "small for the streams, see ADAPTD_MAX_RESIDENT_STREAMS."
    ),
    "windows_restored": MetricSpec(
        "Windows that Redis had lost, in part or whole, and got again from memory."
    ),
    "unavailable": MetricSpec(
        "Turns that ended early because a service did not answer.", "service"
    ),
    "away_seconds": MetricSpec(
        "Seconds that a service has been away, by reason, until a turn ends well. They count from "
        "the last turn that did, once a turn is given up.",
        "service",
    ),
    "kafka_errors": MetricSpec("Calls of the worker that Kafka did not answer or refused.", "call"),
    "redis_errors": MetricSpec("Calls of the worker that Redis did not answer or refused.", "call"),
    "cpu_throttled_seconds": MetricSpec(
        "Seconds that the container was held back because it had used up its CPU; absent where the "
        "kernel does not say."
    ),
    "partitions_claimed": MetricSpec("Partitions claimed by this worker."),
    "partitions_lost": MetricSpec("Partitions revoked by the group, or claimed by another worker."),
    "meta_init_swaps": MetricSpec("Changes to another θ without a restart."),
    "meta_init_refusals": MetricSpec(
        "Active θs that could not be served, by reason; the θ before is served on.", "reason"
    ),
    "shadow_adaptations": MetricSpec(
        "Adaptations made to judge a candidate θ beside the served one."
    ),
    "shadow_seconds": MetricSpec("Time that judging a candidate θ took, in seconds."),
    "canary_refusals": MetricSpec(
        "Candidate θs that this worker could not judge, by reason; what is served is served on.",
        "reason",
    ),
    "canary_actions": MetricSpec(
        "What this worker has done because of a canary's verdict (ADAPTD_CANARY=auto).", "action"
    ),
    "device_faults": MetricSpec(
        "Batches halved because the device's memory was full (out_of_memory), and GPUs given up "
        "for the CPU (lost).",
        "reason",
    ),
    "logs_replaced": MetricSpec(
        "Partitions whose log turned out to be another one than was read before: its topic was "
        "made anew (made_anew), it ends before what was read (shorter), or it has another record "
        "where the last one was (different).",
        "reason",
    ),
    "records_gone": MetricSpec("Offsets that retention removed before they were read."),
    "streams_moved": MetricSpec("Streams that were seen in a second partition."),
    "publications_without_latency": MetricSpec(
        "Mappings whose oldest event has no record time that can be right: absent, more than a "
        "minute ahead, or more than a year old."
    ),
    "log_lines_lost": MetricSpec("Log lines that nobody read in time, or that had no room."),
}
GAUGES: Mapping[GaugeName, MetricSpec] = {
    "consumer_lag_records": MetricSpec(
        "Offsets not yet read, by partition; absent while the end is not known, or Kafka or Redis "
        "does not answer.",
        "partition",
    ),
    "oldest_owed_seconds": MetricSpec(
        "Age of the oldest event that is owed a mapping, be it read or not, by partition; 0 where "
        "no event is, absent while that is not known.",
        "partition",
    ),
    "assigned_partitions": MetricSpec("Partitions this worker owns."),
    "streams": MetricSpec(
        "Streams in memory (resident), waiting to be adapted (changed), waiting for the time of "
        "their next mapping (deferred), waiting for a mapping of the θ that is served (renewal).",
        "state",
    ),
    "window_bytes": MetricSpec("Memory that the resident windows take once they are full."),
    "memory_limit_bytes": MetricSpec(
        "Memory that the process may take: of its container, or of the machine."
    ),
    "cpu_limit_cores": MetricSpec("CPUs that the container may use; absent where all of them."),
    "gpu_memory_bytes": MetricSpec("GPU memory that tensors take."),
    "gpu_memory_limit_bytes": MetricSpec("Memory of the GPU."),
    "ready": MetricSpec("1 when /readyz answers 200."),
    "recovery_stalled": MetricSpec(
        "1 while the worker recovers again and again and gets no further, or while Redis loses "
        "windows as fast as they are restored."
    ),
    "meta_init_refused": MetricSpec("1 while the active θ cannot be served and another θ is."),
    "canary": MetricSpec(
        "1 for the state of the canary, 0 for the others: a candidate is judged (open), has won or "
        "lost; or a promoted θ is watched (watched), has held, or is worse than the θ before it "
        "(worse). Absent without a canary.",
        "state",
    ),
    "canary_streams": MetricSpec("Streams that have said whether the candidate is better."),
    "canary_difference": MetricSpec(
        "The mean over these streams of (active - candidate) / (active + candidate), of losses: "
        "above 0 where the candidate is better; with few pairs (cold), with all (full).",
        "side",
    ),
    "canary_log_e": MetricSpec(
        "The decimal logarithm of the capital of a bet of the judge, and of what the first and the "
        "third must reach (needed).",
        "bet",
    ),
    "last_turn_timestamp_seconds": MetricSpec("When the last turn ended, Unix time."),
}
OUTCOMES = tuple(outcome.value for outcome in Outcome)
KNOWN_LABELS: Mapping[HistogramName | CounterName | GaugeName, Sequence[str]] = {
    "turn_stage_seconds": STAGES,
    "support_loss": ("before", "after"),
    "query_loss": ("before", "after", "ridge"),
    "prequential_loss": get_args(ScoredMapping),
    "prequential_pairs": get_args(ScoredMapping),
    "prequential_hits": get_args(ScoredMapping),
    "events": ("accepted", "dead_letter"),
    "pairs": ("new", "replayed"),
    "dead_letters": get_args(MalformedReason),
    "adaptations": OUTCOMES,
    "mappings_published": OUTCOMES,
    "unavailable": get_args(Service),
    "kafka_call_seconds": tuple(call for call in CALLS["kafka"] if call not in WAITS),
    "redis_call_seconds": CALLS["redis"],
    "kafka_errors": CALLS["kafka"],
    "redis_errors": CALLS["redis"],
    "meta_init_refusals": get_args(RefusalReason),
    "canary_refusals": get_args(RefusalReason),
    "canary_actions": get_args(Action),
    "device_faults": ("out_of_memory", "lost"),
    "logs_replaced": get_args(Replaced),
}
"""The label values that are shown as 0 from the start: without them, a rate would miss the first
of its kind. Gauges are not among them: they are absent until their value is known."""
