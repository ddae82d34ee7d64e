"""What the Dockerfile and the manifests run does run: Python lines, scripts, adaptd's arguments."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
import torch
from prometheus_client import CollectorRegistry

from daemon.errors import Unavailable
from daemon.worker.health import Health, Snapshot
from daemon.worker.http import HttpServer
from deploy.helm.render import KUBERNETES, documents
from deploy.prometheus.queries import DEPLOY
from tests.documentation.checks import check

DOCKERFILE = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
INSTRUCTIONS = [line.partition(" ") for line in re.findall(r"^[A-Z]+ .*$", DOCKERFILE, re.M)]
RUN = [shlex.split(rest) for name, _, rest in INSTRUCTIONS if name == "RUN"]
SNIPPETS = [words[i + 1] for words in RUN for i, word in enumerate(words) if word == "-c"]
HEALTHCHECK = next(rest for name, _, rest in INSTRUCTIONS if name == "HEALTHCHECK")
ARGUMENTS = {
    "base": ["run"],
    "cuda": ["run"],
    "topics": ["topics", "create"],
}
"""What the containers of each plain manifest run."""


def test_the_image_checks_which_torch_it_got() -> None:
    (snippet,) = [snippet for snippet in SNIPPETS if "torch.version" in snippet]
    got, other = ("cuda", "cpu") if torch.version.cuda else ("cpu", "cuda")
    with pytest.raises(SystemExit, match=r"^0$"):
        exec(snippet.replace("${TORCH}", got))
    with pytest.raises(SystemExit, match=f"this torch is for {got}"):
        exec(snippet.replace("${TORCH}", other))


@pytest.mark.parametrize("snippet", [s for s in SNIPPETS if "torch.version" not in s])
def test_every_other_python_line_of_the_dockerfile_runs(snippet: str) -> None:
    exec(snippet)


def test_every_file_that_the_dockerfile_runs_is_copied_before() -> None:
    copied = {
        Path(name).name for n, _, rest in INSTRUCTIONS if n == "COPY" for name in rest.split()
    }
    scripts = {word for words in RUN for word in words if word.endswith(".py")}
    assert scripts == {"split_lock.py", "slim.py", "sbom.py"}
    assert scripts <= copied


@pytest.mark.parametrize("option", [[], ["--torch-apart"]], ids=["whole", "torch apart"])
def test_the_lock_is_split_as_the_dockerfile_does(tmp_path: Path, option: list[str]) -> None:
    for name in ("split_lock.py", "requirements.lock"):
        shutil.copy(DEPLOY / name, tmp_path)
    script, lock = str(tmp_path / "split_lock.py"), tmp_path / "requirements.lock"
    subprocess.run([sys.executable, script, str(lock), *option], check=True)
    assert bool((tmp_path / "torch.txt").read_text()) == bool(option)
    whole = (tmp_path / "requirements.txt").read_text() == lock.read_text()
    assert whole == (not option)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Health]:
    """The health of a worker that answers where the image's environment says."""
    health = Health(Snapshot("i", "0", "v", "cpu", started_at=time.time()), 60, time.monotonic())
    server = HttpServer("127.0.0.1", 0, CollectorRegistry(), health)
    monkeypatch.setenv("ADAPTD_HTTP_PORT", server.url.rpartition(":")[2])
    yield health
    server.close()


def test_the_images_health_check_asks_whether_the_worker_lives(worker: Health) -> None:
    interpreter, option, snippet = json.loads(HEALTHCHECK.partition(" CMD ")[2])
    assert (interpreter, option) == ("python", "-c")
    exec(snippet)
    worker.gave_up(Unavailable("kafka", "away"), now=time.monotonic() - 61)
    with pytest.raises(HTTPError, match="503"):
        exec(snippet)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_adaptd_takes_the_arguments_of_each_container(name: str) -> None:
    found = documents((KUBERNETES / f"{name}.yaml").read_text())
    (template,) = (m["spec"]["template"] for m in found if m["kind"] in ("Deployment", "Job"))
    assert template["spec"]["containers"][0]["args"] == ARGUMENTS[name]
    check(["adaptd", *ARGUMENTS[name]])


def test_the_image_runs_adaptd() -> None:
    words = {n: json.loads(rest) for n, _, rest in INSTRUCTIONS if n in ("CMD", "ENTRYPOINT")}
    assert words["ENTRYPOINT"] == ["adaptd"]
    check([*words["ENTRYPOINT"], *words["CMD"]])
