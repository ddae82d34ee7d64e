"""The download, from a repository that fails on purpose; `services` uses the real one."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.local import folders, kafka_install
from daemon.local.errors import ServicesUnavailable
from daemon.local.kafka_install import KafkaInstall, jars_in


def jar(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.class", b"\xca\xfe\xba\xbe" * 100)


def notes(_line: str) -> None:
    pass


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    def format_storage(install: KafkaInstall) -> None:
        install.formatted.mkdir()

    monkeypatch.setattr(kafka_install, "format_storage", format_storage)


def test_two_at_once_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []
    both_came = threading.Barrier(2)

    @contextmanager
    def locked_by_both(file: Path) -> Iterator[None]:
        both_came.wait(10)  # neither has found the complete folder
        with folders.locked(file):
            yield

    monkeypatch.setattr(kafka_install, "locked", locked_by_both)

    def download(target: Path) -> None:
        downloads.append(target)
        jar(target / "kafka.jar")

    def install() -> None:
        jars_in(tmp_path, Path("java"), notes, download)

    both = [threading.Thread(target=install) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(downloads) == 1
    assert (tmp_path / "kafka-4.1.0" / "jars" / "kafka.jar").is_file()


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
