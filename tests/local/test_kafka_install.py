"""The download, with a repository that fails on purpose; the real one is used by `services`.

Threads stand for the processes that may ask at once: each opens the lock's file for itself, and
the kernel's lock excludes open files from each other, not processes.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.local import kafka_install
from daemon.local.errors import ServicesUnavailable
from daemon.local.folders import new_data_folder
from daemon.local.kafka_install import KafkaInstall, jars_in
from daemon.local.kafka_warm import warm
from daemon.local.server import Server


def jar(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.class", b"\xca\xfe\xba\xbe" * 100)


def notes(_line: str) -> None:
    pass


def at_once(act: Callable[[], object]) -> None:
    with ThreadPoolExecutor() as pool:
        for one in [pool.submit(act) for _ in range(2)]:
            one.result()


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    def format_storage(install: KafkaInstall) -> None:
        install.formatted.mkdir()

    monkeypatch.setattr(kafka_install, "format_storage", format_storage)


def test_two_at_once_download_once(tmp_path: Path) -> None:
    downloads: list[Path] = []

    def slow(target: Path) -> None:
        downloads.append(target)
        time.sleep(0.2)
        jar(target / "kafka.jar")

    at_once(lambda: jars_in(tmp_path, Path("java"), notes, slow))
    assert len(downloads) == 1
    assert (tmp_path / "kafka-4.1.0" / "jars" / "kafka.jar").is_file()


def test_two_at_once_practise_once(tmp_path: Path) -> None:
    install = KafkaInstall(tmp_path, Path("java"), (25, 0, 2))
    practised: list[list[str]] = []

    def practice_server(flags: list[str]) -> Server:
        practised.append(flags)
        cache = flags[0].removeprefix("-XX:AOTCacheOutput=")
        command = ["/bin/sh", "-c", 'sleep 0.2; echo classes >"$1"; sleep 60', "sh", cache]
        folder = new_data_folder("practice", tmp_path)
        return Server("Kafka", "nowhere", command, folder, lambda: Path(cache).exists())

    at_once(lambda: warm(install, practice_server, notes))
    assert len(practised) == 1
    assert install.aot_cache.read_text() == "classes\n"


def test_a_truncated_jar_is_downloaded_again(tmp_path: Path) -> None:
    def truncated_at_first(target: Path) -> None:
        jar(target / "kafka.jar")
        if target.name.endswith("1"):
            whole = (target / "kafka.jar").read_bytes()
            (target / "kafka.jar").write_bytes(whole[: len(whole) // 2])

    folder = jars_in(tmp_path, Path("java"), notes, truncated_at_first)
    assert zipfile.is_zipfile(folder / "jars" / "kafka.jar")


def test_a_killed_download_leaves_nothing_that_counts(tmp_path: Path) -> None:
    jar(tmp_path / "half-killed" / "install" / "jars" / "other.jar")
    folder = jars_in(tmp_path, Path("java"), notes, lambda target: jar(target / "kafka.jar"))
    assert [path.name for path in (folder / "jars").iterdir()] == ["kafka.jar"]
    assert not (tmp_path / "half-killed").exists()


def test_no_network_is_an_error_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def offline(_target: Path) -> None:
        raise ConnectionError("no route to host")

    with pytest.raises(ServicesUnavailable, match=r"cannot download Apache Kafka.*no route"):
        jars_in(tmp_path, Path("java"), notes, offline)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka-4.1.0.lock"]
