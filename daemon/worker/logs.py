"""Logs: a JSON line per event for machines, coloured columns for people. They go to stderr, because
stdout is for the results of commands."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import structlog

from daemon.errors import MalformedReason, Outage
from daemon.turn.report import TurnReport
from daemon.worker.log_sink import LogSink

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

MAX_LIBRARY_CHARS = 1_000
"""A longer message of a library is cut."""
SHOWN_STREAMS = 10
"""How many streams of a partition a line of the log names."""
MOST_STREAMS_NAMED = 5
"""Of those that a turn finds in a second partition: partitions that were added move thousands."""
THRASH_INTERVAL_S, THRASH_SHARE, LEAST_RETURNED = 60.0, 0.1, 100
"""Memory is too small where within so many seconds more evicted streams came back than this share
of the events, and more than so many."""
DEAD_LETTER_INTERVAL_S = 10.0
"""At most one dead letter of each reason is shown in this time: a broken producer makes thousands
in a second, and they are alike."""


def configure(
    level: Level, style: Format, instance: str, sink: LogSink | None = None
) -> structlog.stdlib.BoundLogger:
    """Sets up logging for the process, by default to stderr. Returns a logger that names this
    worker on every line."""
    sink = sink or LogSink(sys.stderr)
    json = style == "json" or (style == "auto" and not sink.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.dict_tracebacks] if json else []),
            structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sink),  # type: ignore[arg-type]  # it writes
        cache_logger_on_first_use=False,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(instance=instance)
    return logger


def adopt_libraries(logger: structlog.stdlib.BoundLogger) -> None:
    """Logs what libraries log and warn of, for the whole process. By default they write plain text
    to stderr, between the lines of JSON, from threads that must not wait for whoever reads it."""
    logging.captureWarnings(True)
    logging.root.handlers = [_FromLibraries(logger)]


class _FromLibraries(logging.Handler):
    """Passes records of `logging` on, warnings and errors only."""

    def __init__(self, logger: structlog.stdlib.BoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a line; what cannot be formatted is a fault of the library's, and left out."""
        if record.name.startswith("kafka."):
            return  # it tells nobody by default, and we log what it raises
        with suppress(Exception):
            log = self._logger.error if record.levelno >= logging.ERROR else self._logger.warning
            detail = record.getMessage()[:MAX_LIBRARY_CHARS]
            log("library", library=record.name, detail=detail, exc_info=record.exc_info)


class TurnLog:
    """Logs what turns did. Every mapping carries the id of the turn that published it, and the line
    of that turn says which offsets it read: so each mapping can be traced to its events."""

    def __init__(
        self, logger: structlog.stdlib.BoundLogger, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = logger
        self._now = now
        self._shown_at: dict[MalformedReason, float] = {}
        self._not_shown: Counter[MalformedReason] = Counter()
        self._returned = self._events = 0
        self._thrash_from = now()

    def finished(self, report: TurnReport) -> None:
        """Logs a line for a turn in which something happened, and at debug one for each mapping."""
        if report.claimed:
            self._log.info("partitions_claimed", turn=report.turn, epochs=dict(report.claimed))
        self._logs_changed(report)
        if report.lost:
            self._log.info("partitions_lost", turn=report.turn, partitions=sorted(report.lost))
        if report.dead_letters:
            self._log.warning("dead_letters", turn=report.turn, reasons=dict(report.dead_letters))
            self._show_some(report)
        if report.restored:
            shown = {p: list(keys)[:SHOWN_STREAMS] for p, keys in report.restored.items()}
            count = sum(map(len, report.restored.values()))
            self._log.warning("windows_restored", turn=report.turn, count=count, streams=shown)
        self._thrash(report)
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
                latency_s=None if published.latency_s is None else round(published.latency_s, 4),
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

    def _logs_changed(self, report: TurnReport) -> None:
        for replaced in report.replaced:
            self._log.error(
                "log_replaced",
                turn=report.turn,
                **replaced._asdict(),
                going_on="its windows begin anew, and it is read from its first offset",
            )
        for moved in report.moved:
            self._log.warning("offset_moved_by_operator", turn=report.turn, **moved._asdict())
        for partition, gone in report.gone.items():
            self._log.error(
                "records_gone",
                turn=report.turn,
                partition=partition,
                offsets=list(gone),
                detail="retention removed them before they were read",
            )
        for stream in report.streams_moved[:MOST_STREAMS_NAMED]:
            self._log.error(
                "stream_in_two_partitions",
                turn=report.turn,
                **stream._asdict(),
                streams=len(report.streams_moved),
                what_to_do="if no partitions were added, give all producers the same partitioner",
            )

    def _thrash(self, report: TurnReport) -> None:
        """Logs, once a minute, that windows are evicted and read back again and again."""
        self._returned += report.returned
        self._events += report.events
        if self._now() - self._thrash_from < THRASH_INTERVAL_S:
            return
        if self._returned > max(THRASH_SHARE * self._events, LEAST_RETURNED):
            self._log.warning(
                "memory_too_small",
                returned=self._returned,
                events=self._events,
                resident=report.holdings.streams,
                what_to_do="raise ADAPTD_MAX_RESIDENT_STREAMS (and ADAPTD_WINDOW_MEMORY_MIB, if it "
                "is set), or add workers",
            )
        self._returned, self._events, self._thrash_from = 0, 0, self._now()

    def _show_some(self, report: TurnReport) -> None:
        """Logs the first dead letter of each reason that none was shown of for a while."""
        self._not_shown += report.dead_letters
        now = self._now()
        for reason, event in report.refused.items():
            if now - self._shown_at.get(reason, -DEAD_LETTER_INTERVAL_S) < DEAD_LETTER_INTERVAL_S:
                continue
            self._shown_at[reason] = now
            alike = self._not_shown.pop(reason, 1) - 1
            self._log.warning("dead_letter", turn=report.turn, **event._asdict(), alike=alike)

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
