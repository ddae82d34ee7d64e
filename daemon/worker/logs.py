"""Logs: a JSON line per event for machines, coloured columns for people. They go to stderr, because
stdout is for the results of commands."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from daemon.errors import Outage
from daemon.turn.report import TurnReport

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]


def configure(level: Level, style: Format, instance: str) -> structlog.stdlib.BoundLogger:
    """Sets up logging for the process. Returns a logger that names this worker on every line."""
    json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.dict_tracebacks] if json else []),
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(instance=instance)
    return logger


SHOWN_STREAMS = 10
"""How many streams of a partition a line of the log names."""


class TurnLog:
    """Logs what turns did. Every mapping carries the id of the turn that published it, and the line
    of that turn says which offsets it read: so each mapping can be traced to its events."""

    def __init__(self, logger: structlog.stdlib.BoundLogger) -> None:
        self._log = logger

    def finished(self, report: TurnReport) -> None:
        """Logs a line for a turn in which something happened, and at debug one for each mapping."""
        if report.claimed:
            self._log.info("partitions_claimed", turn=report.turn, epochs=dict(report.claimed))
        if report.lost:
            self._log.info("partitions_lost", turn=report.turn, partitions=sorted(report.lost))
        if report.dead_letters:
            self._log.warning("dead_letters", turn=report.turn, reasons=dict(report.dead_letters))
        if report.restored:
            shown = {p: list(keys)[:SHOWN_STREAMS] for p, keys in report.restored.items()}
            count = sum(map(len, report.restored.values()))
            self._log.warning("windows_restored", turn=report.turn, count=count, streams=shown)
        if not (report.offsets or report.verdicts):
            return
        if report.batch_splits:
            self._log.warning("device_memory_full", turn=report.turn, halved=report.batch_splits)
        for published in report.published:
            self._log.debug(
                "mapping_published",
                turn=report.turn,
                stream=published.stream.key,
                partition=published.stream.partition,
                version=published.version,
                outcome=published.outcome.value,
                latency_s=round(published.latency_s, 4),
            )
        self._log.info(
            "turn",
            turn=report.turn,
            offsets={p: list(r) for p, r in report.offsets.items()},
            events=report.events,
            pairs=report.pairs,
            replayed=report.replayed_pairs,
            adapted=len(report.verdicts),
            published=len(report.published),
            renewed=sum(published.renewal for published in report.published),
            versions=_version_ranges(report),
            committed=dict(report.committed),
            ms={stage: round(1000 * s, 2) for stage, s in report.stages.items()},
        )

    def gave_up(self, error: Outage, retry_in_s: float) -> None:
        """Logs that a turn ended early; its records will be read again."""
        self._log.warning(
            "unavailable",
            service=error.service,
            detail=error.detail,
            retry_in_s=round(retry_in_s, 2),
        )


def _version_ranges(report: TurnReport) -> dict[int, list[int]]:
    """Returns the smallest and the largest version published, by partition."""
    ranges: dict[int, list[int]] = {}
    for published in report.published:
        low, high = ranges.get(published.stream.partition, [published.version] * 2)
        ranges[published.stream.partition] = [
            min(low, published.version),
            max(high, published.version),
        ]
    return ranges
