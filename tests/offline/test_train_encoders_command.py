"""`adaptd meta-train --source-encoder train`: from recorded contents to a θ that reads such."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from daemon.commands.meta_train import meta_train
from daemon.errors import Misconfigured
from daemon.offline.events_file import RecordedEvent, event_writer
from daemon.offline.meta_train import MetaTrainRequest, meta_train_recorded
from daemon.offline.sides import FreshSizes
from daemon.wire.paired_event import Audio, EventLimits, Text, WirePair, vector
from model.meta.encoders.training import EncodersRecipe
from model.meta.progress import Saving
from model.meta.recipe import Recipe
from model.meta.splits import Fractions, part_of
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init
from model.theta.part import PartSpec
from model.values.contents import AudioClip

app = typer.Typer()
app.command()(meta_train)
TINY = ("--encoder-dim", "6", "--encoder-steps", "8", "--steps", "12", "--hidden-dim", "8")


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(Misconfigured) as raised:
        run(*arguments)
    return str(raised.value)


def wav(turn: float, rng: np.random.Generator) -> bytes:
    seconds = np.arange(int(rng.uniform(0.05, 0.1) * 16_000)) / 16_000
    samples = 8_000.0 * np.sin(2.0 * np.pi * (200.0 * 16.0**turn * seconds + rng.random()))
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def tones(streams: Sequence[str], pairs: int = 10) -> Iterator[RecordedEvent]:
    """Tones, and where their pitch lies on a circle that each stream has turned."""
    for name in streams:
        rng = np.random.default_rng(list(name.encode()))
        turned = rng.random()
        for _ in range(pairs):
            turn = rng.random()
            angle = 2.0 * np.pi * (turn + turned)
            target = vector(np.array([np.cos(angle), np.sin(angle)], np.float32))
            yield RecordedEvent(stream=name, pairs=[WirePair(Audio(wav(turn, rng)), target)])


def greetings(streams: Sequence[str]) -> Iterator[RecordedEvent]:
    for name in streams:
        for n in range(12):
            pair = WirePair(Text(f"number {n}"), Text(f"{name} says {n * n}"))
            yield RecordedEvent(stream=name, pairs=[pair])


def written(path: Path, events: Iterator[RecordedEvent]) -> Path:
    with path.open("wb") as file:
        put = event_writer(path, file)
        for event in events:
            put(event)
    return path


NAMES = [f"room {n}" for n in range(24)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the command has it: on nets this small a second one only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return written(tmp_path / "tones.msgpack", tones(NAMES))


def request(events: Path, saving: Path | None = None) -> MetaTrainRequest:
    return MetaTrainRequest(
        events=(events,),
        name="tones",
        recipe=Recipe(steps=6, hidden_dim=8, validate_every=3, streams=4),
        limits=EventLimits(1_000_000, 16),
        source_encoder="train",
        fresh=FreshSizes(dim=6),
        encoders=EncodersRecipe(steps=8, streams=3, validate_every=4, validation_streams=3),
        saving=None if saving is None else Saving(saving, 2),
    )


def encoder_of(theta: MetaInit) -> PartSpec:
    assert theta.source_encoder is not None
    return theta.source_encoder


def equal(a: PartSpec, b: PartSpec) -> bool:
    return all(np.array_equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


def test_the_theta_reads_wav_files_with_the_encoder_that_was_trained(
    events: Path, tmp_path: Path
) -> None:
    with events.open("ab") as file:
        silence = Audio(wav(0.5, np.random.default_rng(0))[:-800] + bytes(800))
        cut = Audio(silence.data[:300])
        for bad in (cut, Audio(silence.data[:44] + bytes(len(silence.data) - 44))):
            pair = WirePair(bad, vector(np.zeros(2, np.float32)))
            event_writer(events, file)(RecordedEvent(stream=NAMES[0], pairs=[pair]))
    out, report = tmp_path / "theta.safetensors", tmp_path / "page.html"
    arguments = ("--source-encoder", "train", *TINY, "--json", "--report", report)
    document = json.loads(run(events, "--out", out, *arguments).stdout)
    facts = document["facts"]
    assert facts["encoders"].startswith("source (audio): 8 steps (steps), the best after ")
    left_out = facts["data"].partition("left out: ")[2]
    assert left_out == "1 silent_audio, 1 truncated_audio"
    assert [row["step"] for row in document["encoder_history"]] == [0.0, 8.0]
    theta = load_meta_init(out)
    assert (theta.source_modality, theta.source_dim, theta.target_dim) == ("audio", 6, 2)
    assert theta.target_encoder is None
    assert "EncodersRecipe(steps=8" in theta.facts["encoders"]
    engine, rng = Engine(theta, "cpu"), np.random.default_rng(1)
    clips = [engine.prepare("source", "audio", AudioClip(wav(t, rng))) for t in (0.1, 0.9)]
    x_ND = engine.encode("source", clips)
    np.testing.assert_allclose(np.linalg.norm(x_ND, axis=1), 6**0.5, rtol=1e-4)
    assert np.linalg.norm(x_ND[0] - x_ND[1]) > 0.1
    assert "source (audio)" in report.read_text()


class Killed(Exception):
    pass


def killing(at: int) -> Callable[[object], None]:
    steps: list[object] = []

    def on_step(progress: object) -> None:
        steps.append(progress)
        if len(steps) == at:
            raise Killed

    return on_step


def test_killed_in_either_loop_it_goes_on_to_the_same_theta(events: Path, tmp_path: Path) -> None:
    whole = meta_train_recorded(request(events))
    assert whole is not None
    asked = request(events, tmp_path / "theta.training")
    with pytest.raises(Killed):
        meta_train_recorded(asked, on_encoder_step=killing(5))
    with pytest.raises(Killed):
        meta_train_recorded(asked, on_step=killing(3))
    seen: list[object] = []
    continued = meta_train_recorded(asked, on_encoder_step=seen.append)
    assert continued is not None
    assert continued.theta.content_hash == whole.theta.content_hash
    assert whole.theta.usual_sources is not None
    assert not seen  # finished encoders are not trained again
    assert continued.facts == whole.facts


def test_encoders_of_other_events_are_not_taken_from_a_checkpoint(
    events: Path, tmp_path: Path
) -> None:
    asked = request(events, tmp_path / "theta.training")
    with pytest.raises(Killed):
        meta_train_recorded(asked, on_step=killing(1))
    others = written(tmp_path / "others.msgpack", tones([*NAMES, "one more room"]))
    with pytest.raises(Misconfigured, match=r"theta\.training.encoders is of another training"):
        meta_train_recorded(replace(asked, events=(others,)))


def test_no_test_stream_is_trained_on(events: Path, tmp_path: Path) -> None:
    parts = {name: part_of(name, 0, Fractions()) for name in NAMES}
    assert set(parts.values()) == {"train", "validation", "test"}
    fewer = [name for name in NAMES if parts[name] != "test"]
    without = written(tmp_path / "without.msgpack", tones(fewer))
    thinned = written(tmp_path / "thinned.msgpack", tones([n for n in NAMES if n != fewer[0]]))
    found = [meta_train_recorded(request(path)) for path in (events, without, thinned)]
    specs = [encoder_of(result.theta) for result in found if result is not None]
    assert equal(specs[0], specs[1])
    assert not equal(specs[0], specs[2])


def test_both_sides_can_be_trained(tmp_path: Path) -> None:
    texts = written(tmp_path / "texts.jsonl", greetings(NAMES))
    out = tmp_path / "theta.safetensors"
    run(texts, "-o", out, "--source-encoder", "train", "--target-encoder", "train", *TINY)
    theta = load_meta_init(out)
    assert (theta.source_dim, theta.target_dim) == (6, 6)
    assert theta.target_encoder is not None
    assert not equal(encoder_of(theta), theta.target_encoder)


def test_what_cannot_be_is_refused_with_one_line(events: Path, tmp_path: Path) -> None:
    out = tmp_path / "theta.safetensors"
    assert "or train one: --source-encoder train" in refusal(events, "-o", out)
    run(events, "-o", out, "--source-encoder", "train", *TINY)
    again = refusal(events, "-o", tmp_path / "b", "--from", out, "--source-encoder", "train")
    assert "goes on with its own encoders" in again


def test_a_training_says_what_it_does_how_far_it_is_and_what_came_of_it(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    with events.open("wb") as file:
        write = event_writer(events, file)
        rng = np.random.default_rng(0)
        for name in [f"stream {n}" for n in range(24)]:
            turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
            for _ in range(30):
                x = rng.standard_normal(4).astype(np.float32)
                y = (x @ turn).astype(np.float32)
                write(RecordedEvent(stream=name, pairs=[WirePair(vector(x), vector(y))]))
    words = (events, "--out", tmp_path / "a.safetensors", "--steps", "4", "--minutes", "0.5")
    done = run(*words)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert any(line.startswith("recipe: attention, r2d2, 256 hidden units") for line in said)
    assert any(line.startswith("θ: step 4 of 4, ") and "R@1" in line for line in said)
    assert said[-1].startswith("θ ")
    assert "ridge" in said[-1]
    with pytest.raises(Misconfigured, match="to begin anew, delete the file or name another"):
        run(*words, "--hidden-dim", "9")
