"""What a worker published can be looked at, explained, made again to the bit, and compared."""

from __future__ import annotations

import io
import json
import math
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from daemon.config import Settings, load_settings

STREAMS, EVENTS, MALFORMED, WINDOW = 6, 40, 3, 36
"""What the fixture `daemon_at_work` produces, and its largest window."""


@pytest.fixture
def settings(daemon_at_work: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of the daemon at work, in the environment too."""
    for name, value in daemon_at_work.environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(None)


def adaptd(*words: str) -> tuple[int, str, str]:
    """Runs a command in this process. Returns its exit code, and what it printed."""
    from daemon.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def test_streams_are_listed(settings: Settings) -> None:
    code, out, err = adaptd("streams", "list", "--limit", "4")
    assert code == 0, err
    assert out.splitlines()[-1] == f"4 of {STREAMS} streams"
    code, out, _ = adaptd("streams", "list", "--json", "--prefix", "stream-3")
    (facts,) = map(json.loads, out.splitlines())
    assert (facts["stream"], facts["support_pairs"]) == ("stream-3", str(WINDOW))


def test_a_stream_is_shown_with_its_window(settings: Settings) -> None:
    code, out, err = adaptd("streams", "show", "stream-2", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert len(facts["window"]) == WINDOW
    assert facts["window"][-1] == f"{facts['version']}-0"
    assert facts["window"][0] == f"{facts['window_since']}-0"
    code, out, _ = adaptd("streams", "show", "stream-2")
    assert f"window               {WINDOW} pairs: " in out


@pytest.mark.parametrize("command", [("streams", "show"), ("explain",)])
def test_a_stream_without_a_mapping_is_said_to_have_none(
    settings: Settings, command: tuple[str, ...]
) -> None:
    code, _, err = adaptd(*command, "nobody")
    assert code == 2
    assert "holds no mapping of stream 'nobody'" in err


def test_a_mapping_is_explained_and_made_again(settings: Settings) -> None:
    for i in range(STREAMS):
        code, out, err = adaptd("explain", f"stream-{i}")
        assert code == 0, err
        assert f"stream-{i} is served by " in out
        assert f"It learned from {WINDOW} pairs, from offset " in out
        assert f"The window in Redis has {WINDOW} pairs, " in out
        assert "those that it was made of" in out
        assert " won: it is " in out
        assert out.endswith("Made again from that window, it is the same to the bit.\n")


def test_all_that_was_published_is_made_again_to_the_bit(settings: Settings) -> None:
    code, out, err = adaptd("replay")
    assert code == 0, out + err
    assert f"{STREAMS * EVENTS} events of {STREAMS} streams; {MALFORMED} are dead letters" in err
    last = out.splitlines()[-1]
    assert "different" not in last
    assert "incomplete" not in last
    made = int(last.split(" published")[0])
    assert made >= STREAMS
    assert last == f"{made} published mappings made again: {made} the same"


def test_a_range_that_begins_too_late_is_incomplete_and_other_settings_differ(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = adaptd("replay", "--from", "60", "--partition", "0")
    assert code == 0
    assert " incomplete" in out
    monkeypatch.setenv("ADAPTD_EXTRA_STEPS", "7")
    monkeypatch.setenv("ADAPTD_GATE_RIDGE", "false")
    code, out, _ = adaptd("replay")
    assert code == 1
    assert "different" in out


def test_another_theta_and_other_settings_are_compared(settings: Settings, tmp_path: Path) -> None:
    from model.theta.meta_init import fresh_meta_init
    from model.theta.meta_init_file import save_meta_init

    theta, report = tmp_path / "other.safetensors", tmp_path / "report.html"
    save_meta_init(fresh_meta_init(16, 8, hidden_dim=8, seed=5), theta)
    words = ("--meta-init", str(theta), "--set", "support_size=8", "--report", str(report))
    code, out, err = adaptd("replay", *words)
    assert code == 0, err
    assert f"New pairs of {STREAMS} streams" in out
    for name in ("now", "instead", "now, θ alone"):
        assert any(name in line and "±" in line for line in out.splitlines()), out
    page = report.read_text()
    assert "support_size=8" in page
    assert "instead less now: R@1 " in page
    code, _, err = adaptd("replay", "--set", "support_size=0")
    assert code == 2
    assert "ADAPTD_SUPPORT_SIZE" in err
    code, _, err = adaptd("replay", "--set", "support_size")
    assert code == 2
    assert "expected name=value" in err


def test_the_score_of_a_backtest_is_that_of_an_independent_sum(settings: Settings) -> None:
    """One contender, whose score is summed up here from the mappings it makes."""
    from daemon.commands.send import served_theta
    from daemon.replay.backtest import backtest
    from daemon.replay.log import OffsetSpan, read_log
    from daemon.replay.thetas import Remakers
    from daemon.wire.mapping_body import MappingForm
    from model.mappings.numpy_mlp import apply_numpy

    remaker = Remakers(settings, served_theta(settings, ask_kafka=True)).first
    log = read_log(settings, remaker.engine, OffsetSpan())
    now, alone = backtest({"now": (remaker, log)}, every=10, among=16)
    firsts = []
    for stream, pairs in log.pairs.items():
        hits = []
        for at in (10, 20, 30):
            made, _ = remaker.remade(stream, pairs[max(0, at - WINDOW) : at], MappingForm())
            sigma = made.facts.activation, made.facts.output_activation
            for i in range(at, at + 10):
                o_E = apply_numpy(made.tensors, pairs[i].x_D[None], *sigma)[0]
                recent = range(max(0, at - 6), at + 10)
                apart = [float(np.square(o_E - pairs[j].y_E).sum()) for j in recent]
                hits.append(recent[int(np.argmin(apart))] == i)
        firsts.append(np.mean(hits))
    assert now.figures.measures["r_at_1"].mean == pytest.approx(np.mean(firsts))
    assert now.figures.episodes == 3 * STREAMS
    assert alone.differences is not None
    less = alone.differences["r_at_1"].mean
    wanted = alone.figures.measures["r_at_1"].mean - now.figures.measures["r_at_1"].mean
    assert less == pytest.approx(wanted)
    assert less < 0
    assert not math.isnan(alone.differences["ndcg"].low)


def test_explaining_has_words_for_every_outcome(settings: Settings) -> None:
    from daemon.commands.streams import newest_mapping
    from daemon.replay.explain import explained
    from model.values.gate import Outcome

    facts = newest_mapping(settings, "stream-0").facts
    for outcome in Outcome:
        changes: dict[str, Any] = {"outcome": outcome, "ahead_squared": -1.0}
        (first, *_) = explained(msgspec.structs.replace(facts, **changes), [])
        assert f"(outcome {outcome.value})" in first
    changes = {"query_pairs": 0, "window_since": -1}
    text = " ".join(explained(msgspec.structs.replace(facts, **changes), []))
    assert "No pair could judge" in text
    assert "Redis has no window" in text
    assert "from offset" not in text
    changes = {"ahead_squared": math.nan, "candidate": "newer word"}
    text = " ".join(explained(msgspec.structs.replace(facts, **changes)))
    assert "newer word won; there was no other candidate" in text
    text = " ".join(explained(msgspec.structs.replace(facts, event_time_ms=10**18)))
    assert f"happened at {10**18} ms" in text
