"""The scraper's process: reads each worker's /readyz and /metrics, as Prometheus would.

python -m daemon.demo.scraper '{"tenants": "http://127.0.0.1:9464"}'
"""

from __future__ import annotations

import math
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from daemon.demo.reports import WorkerScraped, send_report
from daemon.demo.scenarios import ScenarioName

INTERVAL_S = 1.0
UNTIL_READY_S = 0.2
TIMEOUT_S = 5.0
LATENCY = "adaptd_event_to_publish_seconds_bucket"


def main() -> None:
    """Scrape and report every second, until killed."""
    urls = msgspec.json.decode(sys.argv[1], type=dict[ScenarioName, str])
    while True:
        scraped = [scrape(scenario, url) for scenario, url in urls.items()]
        for each in scraped:
            send_report(each)
        time.sleep(INTERVAL_S if all(each.ready for each in scraped) else UNTIL_READY_S)


def scrape(scenario: ScenarioName, url: str) -> WorkerScraped:
    """Scrape one worker once; one that does not answer is reported as not ready."""
    try:
        ready, why = _get(f"{url}/readyz")
        _, text = _get(f"{url}/metrics")
    except OSError as e:
        return WorkerScraped(scenario, False, f"no answer: {e}")
    return WorkerScraped(scenario, ready, why.strip(), parse_figures(text))


def _get(url: str) -> tuple[bool, str]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return True, response.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return False, e.read().decode(errors="replace")


def parse_figures(text: str) -> dict[str, float]:
    """Returns the figures that the demo shows and checks, from the text of /metrics."""
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(
            s.value for s in samples if s.name == name and labels.items() <= s.labels.items()
        )

    return {
        "accepted": total("adaptd_events_total", outcome="accepted"),
        "dead_letters": total("adaptd_dead_letters_total"),
        "pairs_new": total("adaptd_pairs_total", outcome="new"),
        "pairs_replayed": total("adaptd_pairs_total", outcome="replayed"),
        "turns": total("adaptd_turn_seconds_count"),
        "lag": total("adaptd_consumer_lag_records"),
        "published": total("adaptd_mappings_published_total"),
        "p50_s": quantile(0.5, (s for s in samples if s.name == LATENCY)),
        "p99_s": quantile(0.99, (s for s in samples if s.name == LATENCY)),
    }


def quantile(q: float, buckets: Iterable[Sample]) -> float:
    """Returns a histogram's quantile as PromQL's histogram_quantile does, by interpolation within a
    bucket; 0 when nothing was observed."""
    counts = sorted((float(s.labels["le"]), s.value) for s in buckets)
    rank = q * counts[-1][1] if counts else 0.0
    low, below = 0.0, 0.0
    for high, count in counts:
        if count >= rank and count > below:
            return (
                low if math.isinf(high) else low + (high - low) * (rank - below) / (count - below)
            )
        low, below = high, count
    return 0.0


if __name__ == "__main__":
    main()
