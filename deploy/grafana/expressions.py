"""PromQL that the dashboards' panels share, and their colours."""

from __future__ import annotations

GREEN, ORANGE, RED, BLUE, PURPLE, YELLOW = "green", "orange", "red", "blue", "purple", "yellow"
OURS = "and on (job, instance) adaptd_build_info{CHOSEN}"
"""Keeps, of metrics that other programs have too, those of workers."""


def rate(metric: str, by: str = "", of: str = "") -> str:
    """Returns the sum per second of a counter, by these labels, of the series with this label."""
    matchers = f"CHOSEN, {of}" if of else "CHOSEN"
    return f"sum{_by(by)}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def increase(metric: str, by: str = "") -> str:
    """Returns by how much a counter has grown since the value before, by these labels."""
    return f"sum{_by(by)}(increase({metric}{{CHOSEN}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "", of: str = "") -> str:
    """Returns a quantile of a histogram, by these labels, of the series with this label."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {rate(f'{histogram}_bucket', labels, of)})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else " "
