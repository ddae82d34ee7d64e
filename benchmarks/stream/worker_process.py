"""The process that is measured: started, watched from outside, ended."""

import math
import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import busy_ticks, cpu_clock
from benchmarks.output import NoFigures
from daemon.config import PREFIX, Settings
from daemon.local.process import GuardedProcess
from daemon.local.services import Services

LOOK_EVERY_S = 0.01
STALLED_AFTER_S, TOO_LONG_S = 60.0, 180.0
STOP_WITHIN_S = 30.0  # A turn on a busy machine may take long, and is no reason to have no figures
LOG_LINES = 15
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """How far the worker was, and what everybody had spent by then."""

    at_s: float
    appends: int
    cpu_s: dict[str, float]
    counters: dict[str, float]  # what the worker itself says; nothing if it has no /metrics


@dataclass(frozen=True, slots=True)
class Watched:
    """A running worker. Its progress is read off Redis, where every event is appended once, by
    `command`: that asks nothing of the worker, and the same of every kind of worker."""

    process: GuardedProcess
    log: Path
    services: Services
    client: redis.Redis
    command: str
    metrics_port: int | None

    def appended(self) -> int:
        """Returns how many appends Redis has taken."""
        found = self.client.info("commandstats").get(f"cmdstat_{self.command}", {})
        return int(found.get("calls", 0)) - int(found.get("failed_calls", 0))

    def wait_for(self, appends: int, enough: float = math.inf, enough_at: float = 0.0) -> Sample:
        """Waits until at least so many appends are in Redis, or `enough` are and the clock
        (monotonic, s) has passed `enough_at`; then until the next, so that every run begins and
        ends at the same place in a turn. Raises NoFigures when that stalls."""
        seen, give_up_at = self.appended(), time.monotonic() + STALLED_AFTER_S
        while (now := self.appended()) < appends:
            if now > seen and now >= enough and time.monotonic() >= enough_at:
                break
            if now > seen:
                seen, give_up_at = now, time.monotonic() + STALLED_AFTER_S
            self._still_running(f"{now} of {appends} appends", give_up_at)
            time.sleep(LOOK_EVERY_S)
        return self.sample(now)

    def wait_until(self, what: str, done: Callable[[], bool]) -> None:
        """Waits. Raises NoFigures when it takes too long."""
        give_up_at = time.monotonic() + TOO_LONG_S
        while not done():
            self._still_running(what, give_up_at)
            time.sleep(10 * LOOK_EVERY_S)

    def stop(self) -> None:
        """Stops it as an operator would. Raises NoFigures unless it ends in good order."""
        if code := self.process.terminate(grace_s=STOP_WITHIN_S + 5):
            raise NoFigures(f"the worker's exit code is {code}; {self._log_tail()}")

    def sample(self, appends: int) -> Sample:
        """Returns what everybody has spent by now; `appends` are in Redis."""
        servers = {"kafka": self.services.kafka, "redis": self.services.redis}
        pids = {name: server.process.pid for name, server in servers.items() if server is not None}
        pids = {"worker": self.process.pid} | pids
        at_s = time.monotonic()
        cpu_s = {name: time.clock_gettime(cpu_clock(pid)) for name, pid in pids.items()}
        cpu_s["machine"] = busy_ticks(Path("/proc/stat").read_text()) / TICKS_PER_S
        if self.metrics_port is None:
            return Sample(at_s, appends, cpu_s, {})
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return Sample(at_s, appends, cpu_s, counters(answer.read().decode()))

    def _still_running(self, what: str, give_up_at: float) -> None:
        if self.process.poll() is not None:
            code = self.process.returncode
            raise NoFigures(f"the worker ended (code {code}) at {what}; {self._log_tail()}")
        if time.monotonic() > give_up_at:
            raise NoFigures(f"no progress at {what}; {self._log_tail()}")

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(["its log ends:", *lines])


@contextmanager
def running(
    module: Sequence[str],
    settings: Settings,
    services: Services,
    log: Path,
    command: str,
    metrics_port: int | None,
) -> Iterator[Watched]:
    """Runs `python -m module` with these settings, on an empty Redis."""
    with redis.Redis.from_url(services.redis_url) as client, log.open("wb") as out:
        client.flushall()
        client.config_resetstat()
        process = GuardedProcess(
            [sys.executable, "-m", *module],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(settings),
        )
        try:
            worker = Watched(process, log, services, client, command, metrics_port)
            yield worker
            worker.stop()
        finally:
            process.close()


def environment(settings: Settings) -> dict[str, str]:
    """Returns ours without foreign ADAPTD_* variables, and the settings that are not defaults."""
    inherited = {k: v for k, v in os.environ.items() if not k.upper().startswith(PREFIX)}
    changed = settings.model_dump(exclude_defaults=True)
    changed["redis_url"] = settings.redis_url.get_secret_value()
    return inherited | {PREFIX + name.upper(): str(value) for name, value in changed.items()}


def counters(exposition: str) -> dict[str, float]:
    """Returns a scrape's `_total`, `_sum` and `_count` samples; a labelled one is also there as
    `name{value}`."""
    found: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name.endswith(("_total", "_sum", "_count")):
                found[sample.name] += sample.value
                for value in sample.labels.values():
                    found[f"{sample.name}{{{value}}}"] += sample.value
    return found
