"""The conformance kit: our subscriber, the example reader and the reader in Go do what it says."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from daemon.client import conformance
from daemon.client.newest import NewestMappings
from daemon.client.served import ServedTheta, servable
from daemon.wire.adapted_mapping import decode_mapping
from tests.client.conftest import Record
from tests.deploy.conftest import needed

EXAMPLES = Path(__file__).parents[2] / "examples"
KIT = EXAMPLES / "conformance"
CASES: dict[str, Any] = json.loads((KIT / "cases.json").read_text())


def value(case: dict[str, Any]) -> bytes:
    return bytes((KIT / case["file"]).read_bytes())


def record(entry: dict[str, Any]) -> Record:
    key, file = entry["key"], entry["file"]
    return Record(
        None if key is None else base64.b64decode(key),
        None if file is None else (KIT / file).read_bytes(),
    )


def assert_near(y: Any, wanted: Any) -> None:
    bound = CASES["tolerance"] * np.abs(wanted).max()
    np.testing.assert_allclose(y, wanted, rtol=0, atol=bound)


def file_of(stored: bytes) -> str:
    return next(path.name for path in KIT.glob("*.mapping") if path.read_bytes() == stored)


def ids(case: dict[str, Any]) -> str:
    return str(case.get("file", case.get("name")))


def test_the_folder_is_what_the_command_writes() -> None:
    files = conformance.kit()
    assert {path.name for path in KIT.iterdir()} == set(files)
    for name, data in files.items():
        assert (KIT / name).read_bytes() == data, f"run python -m {conformance.__name__} {KIT}"


def test_every_form_is_in_the_kit() -> None:
    facts = [decode_mapping(value(case)).facts for case in CASES["mappings"]]
    forms = {(f.encoding, f.dtype) for f in facts}
    assert len(forms) == 4
    assert {f.activation for f in facts} == set(conformance.ACTIVATIONS)
    assert {f.output_activation for f in facts} == set(conformance.ACTIVATIONS)


@pytest.mark.parametrize("whole", [True, False], ids=["multiplied out", "as stored"])
@pytest.mark.parametrize("case", CASES["mappings"], ids=ids)
def test_the_subscriber_gives_the_expected_numbers(
    case: dict[str, Any], theta: ServedTheta, whole: bool
) -> None:
    mapping = servable(decode_mapping(value(case)), {theta.content_hash: theta}, keeps=whole)
    assert_near(mapping(case["x"]), case["y"])


@pytest.mark.parametrize("case", CASES["refused"], ids=ids)
def test_the_subscriber_refuses(case: dict[str, Any], theta: ServedTheta) -> None:
    newest = NewestMappings(thetas=[theta])
    newest.take(Record(b"s", value(case)))
    assert newest.get("s") is None
    assert newest.passed_over.total() + len(newest.wanted_thetas) == 1


@pytest.mark.parametrize("case", CASES["sequences"], ids=ids)
def test_the_subscriber_serves_the_newest(case: dict[str, Any], theta: ServedTheta) -> None:
    newest = NewestMappings(thetas=[theta])
    for entry in case["records"]:
        newest.take(record(entry))
    wanted = {s: decode_mapping((KIT / f).read_bytes()).facts for s, f in case["served"].items()}
    assert {stream: repr(m.facts) for stream, m in newest.items()} == {
        stream: repr(facts) for stream, facts in wanted.items()
    }


@pytest.mark.parametrize("case", CASES["mappings"], ids=ids)
def test_the_example_reader_gives_the_expected_numbers(
    reader: ModuleType, case: dict[str, Any]
) -> None:
    thetas = reader.Thetas([KIT / CASES["theta"]])
    mapping = reader.parse(value(case), thetas)
    assert_near(mapping(np.asarray(case["x"], np.float32)), case["y"])


@pytest.mark.parametrize("case", CASES["refused"], ids=ids)
def test_the_example_reader_refuses(reader: ModuleType, case: dict[str, Any]) -> None:
    with pytest.raises(reader.BadMapping):
        reader.parse(value(case), reader.Thetas([KIT / CASES["theta"]]))


@pytest.mark.parametrize("case", CASES["sequences"], ids=ids)
def test_the_example_reader_serves_the_newest(reader: ModuleType, case: dict[str, Any]) -> None:
    orders: dict[str, Any] = {}
    places: dict[str, Any] = {}
    served: dict[str, str] = {}
    for entry in case["records"]:
        each = record(entry)
        with redirect_stdout(io.StringIO()):
            for stream, mapping in reader._newer(each, orders, None, Counter(), places):
                served.pop(stream, None)
                if mapping is not None:
                    served[stream] = file_of(each.value or b"")
    assert served == case["served"]


def test_the_reader_in_go_passes(tmp_path: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    folder = tmp_path / "go"
    shutil.copytree(EXAMPLES / "go", folder)
    environment = os.environ | {
        "GOCACHE": str(EXAMPLES.parent / "build" / "go"),  # the standard library, compiled once
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    command = [needed(go, "no go on PATH: apt-get install golang-go"), "run", ".", str(KIT)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    counts = (len(CASES[kind]) for kind in ("mappings", "refused", "sequences"))
    assert done.stdout == "ok: {} mappings, {} refused, {} sequences\n".format(*counts)
