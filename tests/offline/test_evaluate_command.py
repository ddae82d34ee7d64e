"""`adaptd evaluate`: what it prints, what it refuses, and that its JSON keeps its shape."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from daemon.commands.evaluate import evaluate
from daemon.errors import Misconfigured
from daemon.offline.events_file import RecordedEvent, event_writer
from daemon.wire.paired_event import Text, WirePair, vector
from model.emoji import evaluate as emoji
from model.emoji.tables import COMMANDS, NAMES, TABLES
from model.evaluate.scoring import MEASURES
from model.theta.meta_init import fresh_meta_init
from model.theta.meta_init_file import save_meta_init

D, E = 5, 3
app = typer.Typer()
app.command()(evaluate)


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(Misconfigured) as raised:
        run(*arguments)
    return str(raised.value)


def write(path: Path, streams: int = 12, pairs: int = 40) -> Path:
    """Linear streams, each of its own matrix; every pair has a label."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        put = event_writer(path, file)
        for s in range(streams):
            matrix = rng.standard_normal((D, E))
            for n in range(pairs):
                x = rng.standard_normal(D)
                source, target = (vector(np.asarray(v, np.float32)) for v in (x, x @ matrix))
                pair = WirePair(source, target, f"label {n}")
                put(RecordedEvent(stream=f"s{s}", pairs=[pair]))
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write(tmp_path / "events.msgpack")


@pytest.fixture
def theta(tmp_path: Path) -> Path:
    path = tmp_path / "theta.safetensors"
    save_meta_init(fresh_meta_init(D, E, 16), path)
    return path


def by_method(document: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    (table,) = document["tables"]
    return {(row["method"], row["pairs"]): row for row in table["rows"]}


def test_the_json_has_every_method_size_and_measure_with_its_interval(
    events: Path, theta: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    result = run(events, "--meta-init", theta, "--json", "--quick", "--report", report)
    document = json.loads(result.stdout)
    assert {"machine", "versions", "date", "seeds", "tables", "facts"} <= set(document)
    assert {"python", "torch", "numpy", "adaptd"} <= set(document["versions"])
    rows = by_method(document)
    methods = ("gated", "adapted", "theta", "ridge", "random")
    assert set(rows) == {(m, p) for m in methods for p in (5, 16)}
    for row in rows.values():
        assert row["streams"] == row["episodes"] == 12
        for measure in MEASURES:
            mean, low, high = (row[measure][name] for name in ("mean", "low", "high"))
            assert low <= mean <= high
    assert rows["gated", 5]["theta"].startswith("fresh-5x16x3")
    assert rows["ridge", 5]["theta"] is None
    # the streams are linear; luck finds one in the 20 that are left
    assert rows["ridge", 16]["r_at_1"]["low"] > rows["random", 16]["r_at_1"]["high"]
    assert rows["ridge", 16]["r_at_1"]["mean"] > rows["ridge", 5]["r_at_1"]["mean"]
    assert rows["gated", 16]["loss"]["mean"] <= rows["theta", 16]["loss"]["mean"]
    assert document["tables"][0]["notes"][0].startswith("no training streams")
    page = report.read_text()
    assert "fresh-5x16x3-0 gated" in page
    assert "http" not in page


def test_the_same_seed_gives_the_same_figures_and_another_seed_others(
    events: Path, theta: Path
) -> None:
    def tables(seed: int) -> Any:
        result = run(events, "--meta-init", theta, "--json", "--quick", "--seed", str(seed))
        found = json.loads(result.stdout)["tables"]
        for table in found:
            del table["cpu_s"]
        return found

    assert tables(1) == tables(1) != tables(2)


def test_a_part_is_judged_beside_baselines_trained_on_the_training_streams(
    events: Path, theta: Path
) -> None:
    result = run(events, "--meta-init", theta, "--json", "--quick", "--part", "test")
    rows = by_method(json.loads(result.stdout))
    assert {"joint", "joint + fine-tuning", "ridge on shared"} <= {method for method, _ in rows}
    assert 0 < rows["gated", 5]["streams"] < 12


def test_tables_are_printed_without_json(events: Path, theta: Path) -> None:
    result = run(events, "--meta-init", theta, "--quick")
    assert "random" in result.stdout
    assert "R@5" in result.stdout
    assert "no training streams" in result.output


def text_events(tmp_path: Path) -> list[str | Path]:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        event_writer(path, file)(RecordedEvent(stream="s", pairs=[WirePair(Text("a"), Text("b"))]))
    return [path]


def empty_events(tmp_path: Path) -> list[str | Path]:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")
    return [path]


def short_events(tmp_path: Path) -> list[str | Path]:
    save_meta_init(fresh_meta_init(D, E, 16), tmp_path / "t.safetensors")
    return [write(tmp_path / "short.msgpack", 2, 6), "--meta-init", tmp_path / "t.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda t: [write(t / "e.msgpack"), "--meta-init", t / "no"], "no: cannot be read"),
        (lambda t: ["--meta-init", t / "no.safetensors"], "no.safetensors: cannot be read"),
        (lambda t: ["--table", "lowrank"], "'lowrank' is none of low-rank, "),
        (lambda t: ["--part", "test"], "emoji tables have no parts"),
        (lambda t: [write(t / "e.msgpack"), "--part", "tests"], "'tests' is none of all, train"),
        (lambda t: [write(t / "e.msgpack"), "--table", "low-rank"], "without events files"),
        (lambda t: [t / "events.txt"], "ends in one of"),
        (lambda t: ["--digits", "--table", "untuned"], "--digits: goes with --seed"),
        (lambda t: ["--digits", write(t / "e.msgpack")], "--digits: goes with --seed"),
        (text_events, "no shipped θ maps text to text"),
        (empty_events, "no usable pair"),
        (short_events, "no stream is long enough"),
    ],
)
def test_what_cannot_be_used_is_refused_with_one_line(
    tmp_path: Path, arguments: Callable[[Path], list[str | Path]], says: str
) -> None:
    line = refusal(*arguments(tmp_path))
    assert says in line
    assert "\n" not in line


def test_a_theta_that_fits_no_emoji_table_is_refused(theta: Path) -> None:
    assert "no emoji table has such streams" in refusal("--meta-init", theta)


def test_missing_shipped_thetas_are_lines_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoji, "shipped", lambda name: tmp_path / f"{name}.safetensors")
    report = tmp_path / "page.html"
    result = run("--quick", "--json", "--report", report)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [t["name"] for t in document["tables"]] == list(NAMES)
    assert all(t["rows"] == [] for t in document["tables"])
    assert document["untuned"]["rows"] == []
    assert len(document["untuned"]["notes"]) == 2
    for table, found in zip(TABLES, document["tables"], strict=False):
        for name in set(table.thetas) & set(COMMANDS):
            assert any(COMMANDS[name] in line for line in found["notes"])
    assert document["summary"] == []
    assert "is not there; to train it" in report.read_text()


def test_digits_have_a_key_of_their_own_and_a_table() -> None:
    document = json.loads(run("--digits", "--quick", "--json").stdout)
    assert document["tables"] == []
    found = document["digits"]
    assert found["streams"] == 4
    *rows, trained = found["rows"]
    assert [cell["pairs"] for cell in trained["cells"]] == [5, 16, 64]
    for row in rows:
        (cell,) = row["cells"]
        assert cell["pairs"] == 36
        assert set(cell["r_at_1"]) == {"gated", "adapted", "theta", "ridge"}
        less = cell["r_at_1"]["gated"]["mean"] - cell["r_at_1"]["ridge"]["mean"]
        assert cell["gated_less"]["ridge"]["mean"] == pytest.approx(less, abs=2e-5)
    shown = run("--digits", "--quick").stdout
    assert "pictures of unit length" in shown
    assert "of 4 rows fall short" in shown


def test_digits_without_scikit_learn_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert "--digits: scikit-learn is not installed" in refusal("--digits")
