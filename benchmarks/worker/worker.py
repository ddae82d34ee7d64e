"""The process that is measured: started, watched from outside, ended."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.worker import stats
from benchmarks.worker.errors import BenchFailed
from daemon.config import PREFIX, Settings
from daemon.local.process import GuardedProcess
from daemon.local.services import Services

LOOK_EVERY_S = 0.01
STALLED_AFTER_S = 60.0
TOO_LONG_S = 180.0
STOP_WITHIN_S = 30.0
"""A turn on a busy machine may take long, and is no reason to have no figures."""
LOG_LINES = 15
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """How far the worker was, and what everybody had spent by then."""

    at_s: float
    appends: int
    cpu_s: dict[str, float]
    counters: dict[str, float]


class Worker:
    """A running worker. Its progress is read off Redis, where every event is appended once, by
    `command`: that asks nothing of the worker, and the same of every kind of worker."""

    def __init__(
        self,
        process: GuardedProcess,
        log: Path,
        services: Services,
        command: str,
        http_port: int | None,
    ) -> None:
        self.process = process
        self._log, self._command, self._http_port = log, command, http_port
        self._redis = redis.Redis.from_url(services.redis_url)
        self._pids = {"worker": process.pid}
        for name, server in (("kafka", services.kafka), ("redis", services.redis)):
            if server is not None:
                self._pids[name] = server.process.pid

    def appended(self) -> int:
        """Appends that Redis has taken."""
        found = self._redis.info("commandstats").get(f"cmdstat_{self._command}", {})
        return int(found.get("calls", 0)) - int(found.get("failed_calls", 0))

    def wait_for(self, appends: int, enough: float = math.inf, enough_at: float = 0.0) -> Sample:
        """Until at least so many appends are in Redis, or `enough` are and the clock (monotonic,
        s) has passed `enough_at`; then until the next, so that every run begins and ends at the
        same place in a turn. Raises BenchFailed when that stalls."""
        seen, give_up_at = self.appended(), time.monotonic() + STALLED_AFTER_S
        while (now := self.appended()) < appends:
            if now > seen and now >= enough and time.monotonic() >= enough_at:
                break
            if now > seen:
                seen, give_up_at = now, time.monotonic() + STALLED_AFTER_S
            self._still_running(f"{now} of {appends} appends", give_up_at)
            time.sleep(LOOK_EVERY_S)
        return self._sample(now)

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Raises BenchFailed when it takes too long."""
        give_up_at = time.monotonic() + TOO_LONG_S
        while not done():
            self._still_running(what, give_up_at)
            time.sleep(10 * LOOK_EVERY_S)

    def counters(self) -> dict[str, float]:
        """What the worker itself says; nothing if it has no /metrics."""
        if self._http_port is None:
            return {}
        url = f"http://127.0.0.1:{self._http_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return stats.counters(answer.read().decode())

    def _sample(self, appends: int) -> Sample:
        at_s = time.monotonic()
        cpu_s = {name: time.clock_gettime(cpu_clock(pid)) for name, pid in self._pids.items()}
        cpu_s["machine"] = stats.busy_ticks(Path("/proc/stat").read_text()) / TICKS_PER_S
        return Sample(at_s, appends, cpu_s, self.counters())

    def _still_running(self, what: str, give_up_at: float) -> None:
        if self.process.poll() is not None:
            raise BenchFailed(
                f"the worker ended (code {self.process.returncode}) at {what}; its log ends:\n"
                f"{self._log_tail()}"
            )
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"no progress at {what}; the log ends:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def stop(self) -> None:
        """As an operator would. Raises BenchFailed unless it ends in good order."""
        if code := self.process.terminate(grace_s=STOP_WITHIN_S + 5):
            raise BenchFailed(
                f"the worker's exit code is {code}; its log ends:\n{self._log_tail()}"
            )

    def close(self) -> None:
        """Let go of everything, whatever happened."""
        self.process.close()
        self._redis.close()


@contextmanager
def running(
    module: str,
    arguments: Sequence[str],
    settings: Settings,
    services: Services,
    log: Path,
    command: str,
    http_port: int | None,
) -> Iterator[Worker]:
    """`python -m module arguments` with these settings, on an empty Redis."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
        client.config_resetstat()
    with log.open("wb") as out:
        process = GuardedProcess(
            [sys.executable, "-m", module, *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(settings),
        )
    worker = Worker(process, log, services, command, http_port)
    try:
        yield worker
        worker.stop()
    finally:
        worker.close()


def cpu_clock(pid: int) -> int:
    """The clock of a process's CPU time, user and system of all its threads, to the nanosecond;
    /proc/PID/stat has 10 ms. As clock_getcpuclockid(3) makes it on Linux."""
    return (~pid << 3) | 2


def environment(settings: Settings) -> dict[str, str]:
    """Ours without foreign ADAPTD_* variables, and the settings that are not defaults."""
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    changed = settings.model_dump(exclude_defaults=True)
    changed["redis_url"] = settings.redis_url.get_secret_value()
    return inherited | {PREFIX + name.upper(): str(value) for name, value in changed.items()}
