"""The second dashboard: how good the published mappings are."""

from __future__ import annotations

from deploy.grafana.board import Board, Row
from deploy.grafana.expressions import BLUE, GREEN, ORANGE, RED, increase, quantile, rate
from deploy.grafana.panels import Query, Series, Stat, Timeline

MAPPINGS = {"published": GREEN, "θ unadapted": BLUE, "linear map": ORANGE}
IN_METRICS = ("published", "theta", "ridge")
"""What the metrics call them."""


def _loss(name: str, q: float, when: str) -> str:
    return quantile(q, f"adaptd_{name}", of=f'when="{when}"')


def _loss_of_new_pairs(q: float) -> tuple[Query, ...]:
    return tuple(
        Query(quantile(q, "adaptd_prequential_loss", of=f'mapping="{label}"'), name)
        for name, label in zip(MAPPINGS, IN_METRICS, strict=True)
    )


NEW_PAIRS_MEDIAN = Series(
    "Loss of new pairs, median",
    "θ's loss on new pairs of a sample of streams: of the mapping published last, of θ "
    "unadapted and of ridge regression. Published should lie lowest.",
    _loss_of_new_pairs(0.5),
    width=8,
    log=True,
    colors=MAPPINGS,
)
NEW_PAIRS_WORST = Series(
    "Loss of new pairs, worst tenth",
    "The same, of the pairs that each mapping does worst on.",
    _loss_of_new_pairs(0.9),
    width=8,
    log=True,
    colors=MAPPINGS,
)
FOUND_FIRST_AMONG_32 = Series(
    "Found first among 32",
    "How often a new pair's own target is the nearest of its stream's recent ones "
    "(R@1). By chance 3 %.",
    (
        Query(
            f"{rate('adaptd_prequential_hits_total', 'mapping')} / "
            f"{rate('adaptd_prequential_pairs_total', 'mapping')}",
            "{{mapping}}",
        ),
    ),
    unit="percentunit",
    steps=((None, RED), (0.03, GREEN)),
    width=8,
    most=1,
    colors=dict(zip(IN_METRICS, MAPPINGS.values(), strict=True)),
)
QUERY_LOSS_MEDIAN = Series(
    "Query loss, median",
    "Of θ, of θ adapted to the support, and of a linear map fitted to the support.",
    (
        Query(_loss("query_loss", 0.5, "after"), "adapted"),
        Query(_loss("query_loss", 0.5, "before"), "θ unadapted"),
        Query(_loss("query_loss", 0.5, "ridge"), "linear map"),
    ),
    width=8,
    log=True,
    colors={"adapted": GREEN, "θ unadapted": BLUE, "linear map": ORANGE},
)
SUPPORT_LOSS_MEDIAN = Series(
    "Support loss, median",
    "Of θ and of θ adapted, on the pairs that it was adapted to. Far below the query "
    "loss: the mappings overfit.",
    (
        Query(_loss("support_loss", 0.5, "after"), "adapted"),
        Query(_loss("support_loss", 0.5, "before"), "θ unadapted"),
    ),
    width=8,
    log=True,
    colors={"adapted": GREEN, "θ unadapted": BLUE},
)
QUERY_LOSS_LEFT = Series(
    "Query loss that is left, of θ's",
    "The median after adapting over the median before. Below 1 adapting pays; at 1 it "
    "does nothing.",
    (
        Query(
            f"{_loss('query_loss', 0.5, 'after')} / {_loss('query_loss', 0.5, 'before')}",
            "adapted",
        ),
        Query(
            f"{_loss('query_loss', 0.5, 'ridge')} / {_loss('query_loss', 0.5, 'before')}",
            "linear map",
        ),
    ),
    steps=((None, GREEN), (1, RED)),
    width=8,
    colors={"adapted": GREEN, "linear map": ORANGE},
)
PUBLISHED = Series(
    "Mappings published, by outcome",
    "Mappings that Kafka acknowledged, per second, and those whose event has no time "
    "that can be right.",
    (
        Query(rate("adaptd_mappings_published_total", "outcome"), "{{outcome}}"),
        Query(rate("adaptd_publications_without_latency_total"), "without a latency"),
    ),
    unit="ops",
    width=8,
)
STREAMS_THAT_CHANGED = Series(
    "Streams that changed",
    "Streams whose losses rose as after a change, and windows that were cut because a "
    "mapping of the newer pairs alone was clearly better, per second.",
    (
        Query(rate("adaptd_drift_suspected_total"), "suspected"),
        Query(rate("adaptd_drift_confirmed_total"), "confirmed"),
    ),
    unit="ops",
    width=8,
    colors={"suspected": ORANGE, "confirmed": RED},
)
CHANGES_OF_THETA = Series(
    "Changes of θ",
    "Changes to another θ, θs that were refused, and workers that refuse the active one now.",
    (
        Query(
            increase("adaptd_meta_init_swaps_total"),
            "changes",
        ),
        Query(
            increase("adaptd_meta_init_refusals_total", "reason") + " > 0",
            "refused: {{reason}}",
        ),
        Query("sum(adaptd_meta_init_refused{CHOSEN})", "workers that refuse"),
    ),
    steps=((None, GREEN), (1, RED)),
    width=8,
    limits_shown=False,
)
THETA_SERVED = Stat(
    "θ served",
    "Workers by the θ and the device that they serve it on. One θ, unless a change is under way.",
    (
        Query(
            "count by (version, device) (adaptd_meta_init_info{CHOSEN})",
            "{{version}} on {{device}}",
        ),
    ),
    width=24,
    height=4,
)

CANARY = Timeline(
    "Candidate θ",
    "Whether a candidate θ is judged beside the served one, or a promoted one is watched, and what "
    "the streams say. Unknown without a canary.",
    (Query("max by (state) (adaptd_canary{CHOSEN})", "{{state}}"),),
    width=8,
    states={0: ("no", BLUE), 1: ("yes", ORANGE)},
)
CANARY_DIFFERENCE = Series(
    "Candidate θ against the served one",
    "The mean, over the streams that judge, of (active - candidate) / (active + candidate), both "
    "losses: above 0 the candidate is better.",
    (
        Query("max by (side) (adaptd_canary_difference{CHOSEN})", "{{side}}"),
        Query("max by (bet) (adaptd_canary_log_e{CHOSEN})", "log e: {{bet}}"),
    ),
    least=None,
)
CANARY_WORK = Series(
    "Work of judging candidates",
    "Streams that have said which θ is better, adaptations made for that and the time they take, "
    "per second, candidates refused, and what was done because of verdicts.",
    (
        Query("max(adaptd_canary_streams{CHOSEN})", "streams"),
        Query(rate("adaptd_shadow_adaptations_total"), "adaptations"),
        Query(rate("adaptd_shadow_seconds_total"), "seconds"),
        Query(increase("adaptd_canary_refusals_total"), "refused"),
        Query(increase("adaptd_canary_actions_total", "action"), "{{action}}"),
    ),
)

QUALITY = Board(
    "adaptd-quality",
    "adaptd: quality",
    "How good the published mappings are, beside θ and a linear map.",
    (
        Row(
            "As subscribers see it: on each new pair, before anything learned from it",
            (
                NEW_PAIRS_MEDIAN,
                NEW_PAIRS_WORST,
                FOUND_FIRST_AMONG_32,
            ),
        ),
        Row(
            "As the gate sees it: on the query, which no candidate has learned from",
            (
                QUERY_LOSS_MEDIAN,
                SUPPORT_LOSS_MEDIAN,
                QUERY_LOSS_LEFT,
            ),
        ),
        Row(
            "What is published",
            (
                PUBLISHED,
                STREAMS_THAT_CHANGED,
                CHANGES_OF_THETA,
                THETA_SERVED,
            ),
        ),
        Row(
            "A candidate θ, while one is judged",
            (CANARY, CANARY_DIFFERENCE, CANARY_WORK),
        ),
    ),
    range="now-24h",
)
