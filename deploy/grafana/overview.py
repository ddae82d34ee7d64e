"""The first dashboard: is it broken, what, and since when."""

from __future__ import annotations

from deploy.grafana.board import Board, Row
from deploy.grafana.expressions import BLUE, GREEN, ORANGE, PURPLE, RED, YELLOW, rate
from deploy.grafana.panels import Query, Series, Stat, Timeline
from deploy.prometheus.queries import all_rules

ALERTS = tuple(rule["alert"] for rule in all_rules() if "alert" in rule)
FIRING = 'alertstate="firing", alertname=~"Adaptd.*", namespace=~"$namespace|"'
CRITICAL = f'ALERTS{{{FIRING}, severity="critical"}}'
IN_TIME = 'le="5.0"'

FIRING_ALERTS = Timeline(
    "Firing alerts",
    "Each alert that fires, and since when. Its link leads to its section of the runbook. A green "
    "line says that the rules are evaluated and none fires.",
    (
        Query(
            f"max by (alertname) (2 * {CRITICAL} or ALERTS{{{FIRING}}})",
            "{{alertname}}",
        ),
        # `up` is there whenever Prometheus works: without it a broken one would look calm
        Query(
            f"0 * count(up) unless on () count(ALERTS{{{FIRING}}})",
            "none",
        ),
    ),
    width=24,
    height=6,
    states={0: ("no alert fires", GREEN), 1: ("warning", ORANGE), 2: ("critical", RED)},
    links={name: f"${{runbook}}#{name.lower()}" for name in ALERTS},
)
WORKERS = Stat(
    "Workers",
    "Workers by what they say of themselves: ready; running but not ready; and those "
    "that were scraped within the hour and are not now.",
    (
        Query("sum(adaptd_ready{CHOSEN})", "ready"),
        Query(
            "count(adaptd_ready{CHOSEN} == 0) or 0 * sum(adaptd_ready{CHOSEN})",
            "not ready",
        ),
        Query(
            "count(group by (instance) (last_over_time(adaptd_build_info{CHOSEN}[1h])) "
            "unless on (instance) adaptd_build_info{CHOSEN}) "
            "or 0 * count(adaptd_build_info{CHOSEN})",
            "gone",
        ),
    ),
    steps=((None, RED), (1, GREEN)),
    width=6,
    bad=("not ready", "gone"),
)
SERVICES = Timeline(
    "Kafka and Redis",
    "Whether each service answers the workers, and since when it does not: the share "
    "of the time in which it was away, over all workers.",
    (
        Query(
            "ceil(clamp_max(sum by (service) "
            "(rate(adaptd_away_seconds_total{CHOSEN}[$__rate_interval])) / on () "
            "group_left () count(adaptd_build_info{CHOSEN}), 1) - 0.02)",
            "{{service}}",
        ),
    ),
    width=9,
    states={0: ("answers", GREEN), 1: ("away", RED)},
)
OLDEST_OWED = Series(
    "Oldest event that waits for its mapping",
    "Age of the oldest event that is owed a mapping, be it read or not, by partition. "
    "One line that climbs alone is a partition that stands still. A gap means that it "
    "is not known: the worker waits for a service.",
    (
        Query(
            "max by (partition) (adaptd_oldest_owed_seconds{CHOSEN})",
            "{{partition}}",
        ),
    ),
    unit="s",
    steps=((None, GREEN), (5, ORANGE), (300, RED)),
    width=9,
)
LATE_MAPPINGS = Series(
    "Mappings later than 5 s",
    "Share of the mappings that were published more than 5 s after their event. The "
    "objective allows 1 %; at 14.4 % a month's budget is gone in two days.",
    (
        Query(
            f"1 - {rate('adaptd_event_to_publish_seconds_bucket', of=IN_TIME)} / "
            f"{rate('adaptd_event_to_publish_seconds_count')}",
            "late",
        ),
    ),
    unit="percentunit",
    steps=((None, GREEN), (0.01, ORANGE), (0.144, RED)),
    width=6,
    most=1,
)
LAG = Series(
    "Events that wait in Kafka",
    "Offsets not read yet, in all and of the partition that has most. Unknown while "
    "Kafka or Redis does not answer: then there is a gap, not a 0.",
    (
        Query("sum(adaptd_consumer_lag_records{CHOSEN})", "all partitions"),
        Query("max(adaptd_consumer_lag_records{CHOSEN})", "the largest"),
    ),
    width=6,
    colors={"all partitions": BLUE, "the largest": ORANGE},
)
WORK_DONE = Series(
    "Work done",
    "Events read, events that could not be used, and mappings published, per second.",
    (
        Query(rate("adaptd_events_total", of='outcome="accepted"'), "events"),
        Query(rate("adaptd_events_total", of='outcome="dead_letter"'), "dead letters"),
        Query(rate("adaptd_mappings_published_total"), "mappings"),
    ),
    unit="ops",
    width=6,
    colors={"events": BLUE, "dead letters": RED, "mappings": GREEN},
)
OUTCOMES = Series(
    "What won, of all adaptations",
    "Share of each outcome of the gate. Much `ridge` or `worse` says that θ does not "
    "fit the streams; `not_finite` that adapting diverges.",
    (
        Query(
            f"{rate('adaptd_adaptations_total', 'outcome')} / ignoring (outcome) "
            f"group_left () {rate('adaptd_adaptations_total')}",
            "{{outcome}}",
        ),
    ),
    unit="percentunit",
    width=6,
    most=1,
    stacked=True,
    colors={
        "adapted": GREEN,
        "ridge": BLUE,
        "worse": ORANGE,
        "not_finite": RED,
    },
)
LIMITS = Series(
    "Memory and CPU, of the limit",
    "The worker that is nearest to its memory limit, and the share of the time in "
    "which a worker was held back because it had used up its CPU.",
    (
        Query(
            "max(process_resident_memory_bytes{CHOSEN} / on (job, instance) "
            "adaptd_memory_limit_bytes{CHOSEN})",
            "memory",
        ),
        Query(
            "max(rate(adaptd_cpu_throttled_seconds_total{CHOSEN}[$__rate_interval]))",
            "CPU held back",
        ),
    ),
    unit="percentunit",
    steps=((None, GREEN), (0.8, ORANGE), (0.9, RED)),
    width=24,
    height=5,
    most=1,
    colors={"memory": PURPLE, "CPU held back": YELLOW},
)

OVERVIEW = Board(
    "adaptd",
    "adaptd",
    "Is it broken, what, and since when.",
    (
        Row("Alerts that fire: click one to read what to do", (FIRING_ALERTS,)),
        Row(
            "Is it broken, what, since when",
            (
                WORKERS,
                SERVICES,
                OLDEST_OWED,
                LATE_MAPPINGS,
                LAG,
                WORK_DONE,
                OUTCOMES,
                LIMITS,
            ),
        ),
    ),
)
