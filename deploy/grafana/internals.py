"""The third dashboard: where the time and the memory go."""

from __future__ import annotations

from deploy.grafana.board import Board, Row
from deploy.grafana.expressions import GREEN, ORANGE, OURS, RED, increase, quantile, rate
from deploy.grafana.panels import Heatmap, Query, Series

EVENT_TO_PUBLISH = Series(
    "Event to publish",
    "From an event's record time until Kafka acknowledged the mapping that reflects "
    "it. The publish interval is part of it.",
    tuple(
        Query(quantile(q, "adaptd_event_to_publish_seconds"), name)
        for q, name in ((0.5, "median"), (0.9, "p90"), (0.99, "p99"))
    ),
    unit="s",
    steps=((None, GREEN), (5, RED)),
    log=True,
)
ALL_LATENCIES = Heatmap(
    "Event to publish, all of them",
    "How many mappings took how long. A second band above the first is a few turns that are slow.",
    (
        Query(
            "sum by (le) (increase(adaptd_event_to_publish_seconds_bucket{CHOSEN}"
            "[$__rate_interval]))",
            "{{le}}",
        ),
    ),
    unit="s",
)
LAG_BY_PARTITION = Series(
    "Lag by partition",
    "Offsets of each partition that are not read yet.",
    (
        Query(
            "max by (partition) (adaptd_consumer_lag_records{CHOSEN})",
            "{{partition}}",
        ),
    ),
)
TIME_IN_EACH_STAGE = Series(
    "Time in each stage",
    "Seconds of each second that the workers spend in each stage of a turn; most of "
    "`poll` is waiting.",
    (Query(rate("adaptd_turn_stage_seconds_sum", "stage"), "{{stage}}"),),
    unit="s",
    stacked=True,
)
STAGE_LENGTH_P99 = Series(
    "Stage length, p99",
    "How long the slow turns take, by stage. `slide`, `save`: Redis. `publish`, "
    "`commit`: Kafka. `encode`, `adapt`: the device.",
    (
        Query(
            quantile(0.99, "adaptd_turn_stage_seconds", "stage", 'stage!="poll"'),
            "{{stage}}",
        ),
    ),
    unit="s",
    log=True,
)
TURN_AND_INNER_LOOP = Series(
    "Turn and inner loop",
    "Length of a turn without the wait for records, and of adapting its batch.",
    tuple(
        Query(
            quantile(q, f"adaptd_{name}_seconds"),
            f"{name.replace('_', ' ')}, {shown}",
        )
        for name in ("turn", "inner_loop")
        for q, shown in ((0.5, "median"), (0.99, "p99"))
    ),
    unit="s",
    log=True,
)
BATCH_SIZE = Series(
    "Batch size",
    "Streams adapted together. At ADAPTD_MAX_BATCH the inner loop is the bottleneck.",
    (
        Query(
            f"{rate('adaptd_batch_streams_sum')} / {rate('adaptd_batch_streams_count')}",
            "mean",
        ),
        Query(quantile(0.95, "adaptd_batch_streams"), "p95"),
    ),
)
TURNS = Series(
    "Turns",
    "Turns of each worker, per second.",
    (
        Query(
            rate("adaptd_turn_seconds_count", "pod, instance"),
            "{{pod}} {{instance}}",
        ),
    ),
    unit="ops",
)
FAULTS = Series(
    "Turns given up, and other faults",
    "Turns that ended early for a service, faults of a GPU, log lines that were lost, "
    "and workers whose recovery gets no further.",
    (
        Query(rate("adaptd_unavailable_total", "service"), "given up: {{service}}"),
        Query(rate("adaptd_device_faults_total", "reason"), "GPU: {{reason}}"),
        Query(rate("adaptd_log_lines_lost_total"), "log lines lost"),
        Query("sum(adaptd_recovery_stalled{CHOSEN})", "recovery stalled"),
    ),
    unit="ops",
)
KAFKA_S_ANSWERS_P99 = Series(
    "Kafka's answers, p99",
    "How long Kafka takes to answer each call of the workers. Polls are not among "
    "them: they wait for events.",
    (Query(quantile(0.99, "adaptd_kafka_call_seconds", "call"), "{{call}}"),),
    unit="s",
    log=True,
)
REDIS_ANSWERS_P99 = Series(
    "Redis' answers, p99",
    "How long Redis takes to answer each call of the workers.",
    (Query(quantile(0.99, "adaptd_redis_call_seconds", "call"), "{{call}}"),),
    unit="s",
    log=True,
)
CALLS_THAT_FAILED = Series(
    "Calls that failed",
    "Calls that Kafka or Redis did not answer in time or refused, per second.",
    (
        Query(rate("adaptd_kafka_errors_total", "call") + " > 0", "kafka: {{call}}"),
        Query(rate("adaptd_redis_errors_total", "call") + " > 0", "redis: {{call}}"),
        Query(
            f"{rate('adaptd_kafka_errors_total')} + {rate('adaptd_redis_errors_total')}",
            "all",
        ),
    ),
    unit="ops",
)
AWAY_BY_REASON = Series(
    "Away, by reason",
    "Seconds of each second in which a service could not be worked with, and why.",
    (
        Query(
            rate("adaptd_away_seconds_total", "service, reason") + " > 0",
            "{{service}}: {{reason}}",
        ),
        Query(rate("adaptd_away_seconds_total"), "all"),
    ),
    unit="s",
)
LOGS_OF_THE_TOPIC = Series(
    "Logs of the topic",
    "Partitions whose log turned out to be another one, offsets that retention removed "
    "before they were read, and streams seen in a second partition.",
    (
        Query(
            increase("adaptd_logs_replaced_total"),
            "logs replaced",
        ),
        Query(
            increase("adaptd_records_gone_total"),
            "records gone",
        ),
        Query(
            increase("adaptd_streams_moved_total"),
            "streams moved",
        ),
    ),
)
DEAD_LETTERS_BY_REASON = Series(
    "Dead letters, by reason",
    "Events that could not be used, per second. The runbook says what each reason means.",
    (
        Query(rate("adaptd_dead_letters_total", "reason") + " > 0", "{{reason}}"),
        Query(rate("adaptd_dead_letters_total"), "all"),
    ),
    unit="ops",
)
STREAMS = Series(
    "Streams",
    "Streams in memory, waiting to be adapted, for their publish interval, and for a "
    "mapping of the θ that is served.",
    (Query("sum by (state) (adaptd_streams{CHOSEN})", "{{state}}"),),
    width=6,
)
WINDOW_MEMORY = Series(
    "Window memory",
    "Memory that the windows of each worker take once they are full.",
    (
        Query(
            "sum by (pod, instance) (adaptd_window_bytes{CHOSEN})",
            "{{pod}} {{instance}}",
        ),
    ),
    unit="bytes",
    width=6,
)
WINDOWS_MOVED = Series(
    "Windows moved",
    "Windows read back from Redis, removed from memory, and written to Redis again "
    "because it had lost them, per second.",
    (
        Query(rate("adaptd_windows_loaded_total"), "loaded"),
        Query(rate("adaptd_windows_evicted_total"), "evicted"),
        Query(rate("adaptd_windows_restored_total"), "restored"),
        Query(rate("adaptd_windows_returned_total"), "returned"),
    ),
    unit="ops",
    width=6,
)
PARTITIONS = Series(
    "Partitions",
    "Partitions that each worker owns, and how many were claimed and lost.",
    (
        Query(
            "sum by (pod, instance) (adaptd_assigned_partitions{CHOSEN})",
            "{{pod}} {{instance}}",
        ),
        Query(
            increase("adaptd_partitions_claimed_total"),
            "claimed",
        ),
        Query(
            increase("adaptd_partitions_lost_total"),
            "lost",
        ),
    ),
    width=6,
)
MEMORY = Series(
    "Memory",
    "What each worker takes, and the limit beyond which the kernel kills it.",
    (
        Query(
            f"process_resident_memory_bytes{{CHOSEN}} {OURS}",
            "{{pod}} {{instance}}",
        ),
        Query("max(adaptd_memory_limit_bytes{CHOSEN})", "limit"),
    ),
    unit="bytes",
    width=6,
    colors={"limit": RED},
)
CPU = Series(
    "CPU",
    "CPUs that each worker uses, the most that it may use, and for how much of the "
    "time it was held back.",
    (
        Query(
            f"rate(process_cpu_seconds_total{{CHOSEN}}[$__rate_interval]) {OURS}",
            "{{pod}} {{instance}}",
        ),
        Query("max(adaptd_cpu_limit_cores{CHOSEN})", "limit"),
        Query(
            "max(rate(adaptd_cpu_throttled_seconds_total{CHOSEN}[$__rate_interval]))",
            "held back",
        ),
    ),
    width=6,
    colors={"limit": RED, "held back": ORANGE},
)
GPU_MEMORY = Series(
    "GPU memory",
    "What tensors take of each worker's GPU, and how much it has.",
    (
        Query("adaptd_gpu_memory_bytes{CHOSEN}", "{{pod}} {{instance}}"),
        Query("max(adaptd_gpu_memory_limit_bytes{CHOSEN})", "limit"),
    ),
    unit="bytes",
    width=6,
    colors={"limit": RED},
)
UPTIME = Series(
    "Uptime, and age of the last turn",
    "How long each worker has run, and how long ago the last turn of the slowest one ended.",
    (
        Query(
            f"time() - (process_start_time_seconds{{CHOSEN}} {OURS})",
            "{{pod}} {{instance}}",
        ),
        Query(
            "max(time() - (adaptd_last_turn_timestamp_seconds{CHOSEN} > 0))",
            "oldest last turn",
        ),
    ),
    unit="s",
    width=6,
    log=True,
    colors={"oldest last turn": ORANGE},
)
EVENTS_AND_PAIRS = Series(
    "Events and pairs",
    "Events by outcome, and pairs that were new to their window or read again.",
    (
        Query(rate("adaptd_events_total", "outcome"), "events {{outcome}}"),
        Query(rate("adaptd_pairs_total", "outcome"), "pairs {{outcome}}"),
    ),
    unit="ops",
    width=24,
    height=6,
)

INTERNALS = Board(
    "adaptd-internals",
    "adaptd: internals",
    "Where the time and the memory go: turns, clients, windows, processes.",
    (
        Row(
            "Freshness",
            (
                EVENT_TO_PUBLISH,
                ALL_LATENCIES,
                LAG_BY_PARTITION,
            ),
        ),
        Row(
            "Turns",
            (
                TIME_IN_EACH_STAGE,
                STAGE_LENGTH_P99,
                TURN_AND_INNER_LOOP,
                BATCH_SIZE,
                TURNS,
                FAULTS,
            ),
        ),
        Row(
            "Clients",
            (
                KAFKA_S_ANSWERS_P99,
                REDIS_ANSWERS_P99,
                CALLS_THAT_FAILED,
                AWAY_BY_REASON,
                LOGS_OF_THE_TOPIC,
                DEAD_LETTERS_BY_REASON,
            ),
        ),
        Row(
            "Windows and partitions",
            (
                STREAMS,
                WINDOW_MEMORY,
                WINDOWS_MOVED,
                PARTITIONS,
            ),
        ),
        Row(
            "Processes",
            (
                MEMORY,
                CPU,
                GPU_MEMORY,
                UPTIME,
                EVENTS_AND_PAIRS,
            ),
        ),
    ),
)
