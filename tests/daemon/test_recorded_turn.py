"""What a few turns put on the wire is what it was when recorded_turn.json was written.

Pinned, in the order of the calls: what the window store is asked to claim, mark and append, every
record that is produced (topic, key, value and headers, byte by byte), the offsets that are
committed. To record anew, after a change that is meant to show on the wire:

    ADAPTD_RECORD=1 python -m pytest tests/daemon/test_recorded_turn.py

which fails on purpose, each case once it has been written; look at the difference, then run
without. Recording takes what the code does now, so the test also computes every published number by
plain formulas in fractions: that holds whatever was recorded.

*Equal on every machine.* Floating-point sums differ between CPUs where they round. Here none does:
θ, rates, inputs and targets are small integers or powers of two, counts of pairs and dimensions are
powers of two, so that every sum in any order is exact in float32, and what goes out in float16 has
11 bits at most. Targets are 1 or −1: the unit that they are adapted in, their root mean square, is
1. (Only the stream with an output activation has others: they are not put into units.) Ridge
regression divides, and rounds; here it only judges: queries lie at right angles to the support's
one direction, so that it predicts the mean target whatever its penalty. A zero's sign is told too:
factors hold some -0.0, each of one product and not of a sum. Other losses, activations, learners
and encoders round: their bytes are not pinned here. Nor are θ and linear maps (outcomes `worse`,
`ridge`): two pairs alone do not decide against θ′.

*Nothing else is masked.* Clock and instance are arguments; no version of the package is on the
wire; the reasons of the dead letters are the project's own words, not those of a library that
parses. (The name of an exception's class is one of their headers: to readers it is a word like any
other.)

H = hidden units, D = source dim, E = target dim, N = pairs of a stream, S = support pairs,
Q = query pairs, G = H + 1; 2 = two of each
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load as load_safetensors

from daemon.adapters.memory import (
    MemoryEventSource,
    MemoryOutbox,
    MemoryTopic,
    MemoryWindowStore,
)
from daemon.config import Settings
from daemon.turn.loop import Loop
from daemon.turn.pending import Pending
from daemon.turn.ports import NO_LENGTHS, Append, Appended, Claim, Ports
from daemon.wire.record import Message
from daemon.worker.wiring import load_engine, loop_policy, message_builder
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import save_meta_init
from model.theta.part import PartSpec

RECORDED = Path(__file__).with_name("recorded_turn.json")
RECORD = bool(os.environ.get("ADAPTD_RECORD"))

FloatArray = NDArray[np.float32]
Exact = NDArray[np.object_]
"""Of fractions."""
Headers = tuple[tuple[str, bytes], ...]


# ---- θ and what its streams bring: small integers


def signs(text: str) -> FloatArray:
    """Read + - . as 1, -1 and 0."""
    return np.array([{"+": 1, "-": -1, ".": 0}[sign] for sign in text], np.float32)


def rows(*given: Sequence[int]) -> FloatArray:
    """Put numbers into a matrix."""
    return np.array(given, np.float32)


UNUSED = 32 * "."
"""Sources that are 0, for sources of unit size."""
THETA: Mapping[str, FloatArray] = {
    "w1": np.stack(
        [
            signs(".................-...+.........." + UNUSED),
            signs("......................+.+......." + UNUSED),
            signs(".......................+..+....." + UNUSED),
            signs(".........................-.-...." + UNUSED),
            *[signs(64 * ".")] * 8,
        ]
    ),
    "b1": signs("++++........"),
    "w2": np.stack([signs(row + 8 * ".") for row in ("+++.", "++.+", "++.-", "-.-+")]),
    "b2": signs("-+.."),
}
"""Four hidden units, and eight that stay 0: with fewer, factors would take more than the whole."""
ONE_STEP = np.array([[2**-5, 2**-1, 2**-3, 2**-1]], np.float32)
TWO_STEPS = np.array([[2**-5, 2**-1, 2**-3, 2**-1], [2**-5, 2**-1, 0, 1]], np.float32)
"""Rates of w1, b1, w2, b2. A second step of w2 as well would need more than 24 bits."""


@dataclass(frozen=True)
class Pairs:
    """One stream's pairs in order: the first four come in one turn, more in the next."""

    x_ND: FloatArray
    y_NE: FloatArray


X_ND = 2 * np.stack(
    [
        signs("+-....-+..+--+....+--+..+-....-+" + UNUSED),
        signs("..-++-..-+....+--+....+-..-++-.." + UNUSED),
        signs("................+--++--+-++--++-" + UNUSED),
        signs(".--.+..+-..-.++..++.-..-+..+.--." + UNUSED),
        signs(".-.++.-.-.+..+.-.+.--.+.+.-..-.+" + UNUSED),
        signs("....+--+-++-....-++-........+--+" + UNUSED),
    ]
)
"""m + d, m - d, u - m, m + v, m + w, ...: m, d, u, v are of ±1 and at right angles to each other,
and no mean of two or four stands out."""
STREAMS: Mapping[str, Pairs] = {
    "learns": Pairs(
        X_ND,
        np.stack([signs(row) for row in ("--++", "-+-+", "-+--", "---+", "-+++", "+++-")]),
    ),
    "rectified": Pairs(
        X_ND[:4],
        rows((1, 3, 3, 1), (2, 4, 4, 4), (1, 3, 4, 3), (4, 3, 3, 1)),
    ),
}
PARTITIONS = {"learns": 0, "rectified": 0}


# ---- the cases


@dataclass(frozen=True)
class Case:
    """What is served, in what form, and to which streams."""

    encoding: Literal["full", "lowrank"]
    dtype: Literal["float32", "float16"]
    outcomes: Sequence[tuple[str, str]]
    """Stream and outcome of every mapping, in order."""
    forms: Sequence[str]
    """Encodings that they come to have."""
    rates: FloatArray
    output: Literal["none", "relu"] = "none"
    malformed: bool = False
    """Whether some events cannot be used."""

    @property
    def streams(self) -> list[str]:
        """Every stream once."""
        return list(dict.fromkeys(stream for stream, _ in self.outcomes))


def of_two_turns(
    encoding: Literal["full", "lowrank"], dtype: Literal["float32", "float16"]
) -> Case:
    """One stream, which goes on."""
    outcomes = (("learns", "adapted"), ("learns", "adapted"))
    return Case(encoding, dtype, outcomes, (encoding, encoding), ONE_STEP)


def of_two_steps(encoding: Literal["full", "lowrank"]) -> Case:
    """One stream, adapted by two steps."""
    return Case(encoding, "float32", (("learns", "adapted"),), (encoding,), TWO_STEPS)


CASES: Mapping[str, Case] = {
    "whole mappings in float32": of_two_turns("full", "float32"),
    "whole mappings in float16": of_two_turns("full", "float16"),
    "factors in float32": of_two_turns("lowrank", "float32"),
    "factors in float16": of_two_turns("lowrank", "float16"),
    "a whole mapping after two steps": of_two_steps("full"),
    "factors after two steps": of_two_steps("lowrank"),
    "a mapping with an output activation has no factors": Case(
        "lowrank", "float16", (("rectified", "adapted"),), ("full",), ONE_STEP, "relu"
    ),
    "events that cannot be used become dead letters beside a mapping": Case(
        "lowrank", "float16", (("learns", "adapted"),), ("lowrank",), ONE_STEP, malformed=True
    ),
}


# ---- events, as a producer writes them


def vector(numbers: FloatArray, pack: Callable[[bytes], object]) -> dict[str, object]:
    """Write one content."""
    return {
        "type": "vector",
        "dtype": "float32",
        "shape": [len(numbers)],
        "data": pack(numbers.astype("<f4").tobytes()),
    }


def pairs_of(stream: str, first: int, end: int, pack: Callable[[bytes], object]) -> list[object]:
    """Write a stream's pairs from `first` up to `end`."""
    found = STREAMS[stream]
    every = zip(found.x_ND[first:end], found.y_NE[first:end], strict=True)
    return [{"source": vector(x_D, pack), "target": vector(y_E, pack)} for x_D, y_E in every]


def in_msgpack(stream: str, first: int, end: int) -> bytes:
    """Write an event without a time of its own."""
    return msgspec.msgpack.encode({"pairs": pairs_of(stream, first, end, lambda data: data)})


def in_json(stream: str, first: int, end: int, **more: object) -> bytes:
    """Write an event with base64 in place of bytes."""
    pairs = pairs_of(stream, first, end, lambda data: base64.b64encode(data).decode())
    return json.dumps({"pairs": pairs, **more}).encode()


JSON_HEADERS: Headers = (("content-type", b"application/json"), ("trace", b"7"))


def produce_windows(topic: MemoryTopic, streams: Sequence[str]) -> None:
    """Feed each stream four pairs: a JSON event of one, a msgpack event of one, one of two."""
    for number, stream in enumerate(streams):
        at, key, ms = PARTITIONS[stream], stream.encode(), 900_000 + 1_000 * number
        named = in_json(stream, 0, 1, id=f"{stream}-1", time_ms=ms - 500)
        topic.produce(at, key, named, headers=JSON_HEADERS, timestamp_ms=ms)
        topic.produce(at, key, in_msgpack(stream, 1, 2), timestamp_ms=ms + 1)
        topic.produce(at, key, in_msgpack(stream, 2, 4), timestamp_ms=ms + 2)


def produce_malformed(topic: MemoryTopic) -> None:
    """Feed what becomes a dead letter: no key, shapes that lie or do not fit, an unknown type."""
    lying = in_json("learns", 0, 1).replace(b'"shape": [32]', b'"shape": [31]')
    unfit = msgspec.msgpack.encode({"pairs": [{"source": numbers(3), "target": numbers(4)}]})
    topic.produce(0, None, b"whatever", timestamp_ms=950_000)
    topic.produce(0, b"lies", lying, headers=JSON_HEADERS, timestamp_ms=950_001)
    topic.produce(1, b"unfit", unfit, timestamp_ms=950_002)
    topic.produce(1, b"xml", b"<a/>", headers=(("content-type", b"text/xml"),))


def numbers(dim: int) -> dict[str, object]:
    """Write a vector of zeros."""
    return vector(np.zeros(dim, np.float32), lambda data: data)


# ---- the worker, on ports that keep a journal


class StandingClock:
    """Tells the time that it is given."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        """Tell the seconds."""
        return self.at

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.at += seconds

    def wall_ms(self) -> int:
        """Tell the milliseconds."""
        return int(self.at * 1_000)


@dataclass
class Lab:
    """What the worker stands in, and what it did there."""

    topic: MemoryTopic = field(default_factory=lambda: MemoryTopic(2))
    clock: StandingClock = field(default_factory=StandingClock)
    journal: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)

    def note(self, *lines: str) -> None:
        """Write a call down."""
        self.journal += lines


class NotingSource(MemoryEventSource):
    """Writes down what is committed."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.topic)
        self._lab = lab

    def commit(
        self, offsets: Mapping[int, int], notes: Mapping[int, str] | None = None
    ) -> Pending[bool]:
        """Commit, and write it down."""
        told = [f"partition {partition} up to {offset}" for partition, offset in offsets.items()]
        self._lab.note(f"commit {', '.join(told)}")
        return super().commit(offsets, notes)


class NotingOutbox(MemoryOutbox):
    """Writes down what is produced."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self._lab = lab

    def send(self, messages: Sequence[Message]) -> None:
        """Send, and write it down."""
        for message in messages:
            self._lab.note(*record_as_text(message))
        self._lab.sent += messages


class NotingWindows(MemoryWindowStore):
    """Writes down what the store is asked to change."""

    def __init__(self, size: int, lab: Lab) -> None:
        super().__init__(size)
        self._lab = lab

    def claim(self, partition: int, now_ms: int) -> Claim:
        """Claim, and write it down."""
        self._lab.note(f"claim partition {partition} at {now_ms}")
        return super().claim(partition, now_ms)

    def mark(self, partition: int, epoch: int, meta_init: str) -> None:
        """Mark, and write it down."""
        self._lab.note(f"mark partition {partition}, epoch {epoch}: {meta_init!r}")
        super().mark(partition, epoch, meta_init)

    def append(
        self,
        partition: int,
        epoch: int,
        position: int,
        appends: Sequence[Append],
        lengths: Mapping[str, int] = NO_LENGTHS,
    ) -> Appended:
        """Append, and write it down."""
        self._lab.note(f"append to partition {partition}, epoch {epoch}, position {position}")
        self._lab.note(*map(pair_as_text, appends))
        return super().append(partition, epoch, position, appends, lengths)


def worker(case: Case, folder: Path, lab: Lab) -> Loop:
    """Make a loop as `adaptd run` does, but for the ports."""
    settings = Settings(
        meta_init=theta_file(case, folder),
        device="cpu",
        torch_threads=0,
        support_size=2,
        query_size=2,
        min_support=2,
        max_resident_streams=64,
        max_batch=8,
        max_wait_ms=0,
        turn_interval_ms=0,
        publish_interval_ms=0,
        mapping_encoding=case.encoding,
        mapping_dtype=case.dtype,
    )
    engine = load_engine(settings)
    source, store, out = NotingSource(lab), NotingWindows(4, lab), NotingOutbox(lab)
    ports = Ports(source, store, out, engine, lab.clock)
    return Loop(loop_policy(settings, engine), ports, message_builder(settings, engine), "recorded")


def theta_file(case: Case, folder: Path) -> Path:
    """Write θ."""
    theta = MetaInit(
        version="recorded-theta",
        source_modality="vector",
        target_modality="vector",
        source_dim=64,
        hidden_dim=12,
        target_dim=4,
        activation="relu",
        output_activation=case.output,
        mapping=THETA,
        learner=PartSpec({"kind": "maml"}, {"rates": case.rates}),
    )
    path = folder / "theta.safetensors"
    save_meta_init(theta, path)
    return path


def serve(case: Case, folder: Path) -> Lab:
    """Run a turn that claims, one that publishes and, if asked, one in which a window slides."""
    lab = Lab()
    loop = worker(case, folder, lab)
    take_turn(loop, lab)
    produce_windows(lab.topic, case.streams)
    if case.malformed:
        produce_malformed(lab.topic)
    take_turn(loop, lab)
    if len(case.outcomes) > len(case.streams):
        lab.topic.produce(0, b"learns", in_msgpack("learns", 4, 6), timestamp_ms=960_000)
        take_turn(loop, lab)
    loop.finish()
    return lab


def take_turn(loop: Loop, lab: Lab) -> None:
    """Run one turn, a second after the one before."""
    lab.clock.sleep(1.0)
    lab.note(f"turn at {lab.clock.wall_ms()}")
    loop.turn()


# ---- what is written down: text that tells every byte


def pair_as_text(each: Append) -> str:
    """Tell a pair that is appended: its stream, its id, when it happened, its float32 numbers."""
    pair = each.pair
    assert pair.x_D.dtype.name == pair.y_E.dtype.name == "float32"
    x, y = (" ".join(f"{number:.9g}" for number in side) for side in (pair.x_D, pair.y_E))
    return f"  {each.stream} {pair.id.offset}.{pair.id.place} at {pair.time_ms}: {x} -> {y}"


ROUND = ("adaptd-query-loss-ridge", "adaptd-content-hash")
"""Headers of a ridge regression's record that depend on how its numbers were rounded."""


def record_as_text(message: Message) -> list[str]:
    """Tell a record."""
    key = "no key" if message.key is None else f"key {message.key.decode()!r}"
    value = mapping_as_text(message) if is_mapping(message) else [in_base64(message.value or b"")]
    headers = [(name, (text or b"").decode()) for name, text in message.headers]
    if ("adaptd-outcome", "ridge") in headers:  # see above: it rounds
        value = ["<what rounds>"]
        headers = [(name, "<rounds>" if name in ROUND else text) for name, text in headers]
    return [
        f"send to {message.topic}, {key}",
        *(f"  {name}: {text}" for name, text in headers),
        *(f"  = {part}" for part in value),
    ]


def mapping_as_text(message: Message) -> list[str]:
    """Tell a safetensors file; facts that are the headers once more are not repeated."""
    length, header, data = in_three(message.value or b"")
    headers = [(name, text or b"") for name, text in message.headers]
    facts = {name.removeprefix("adaptd-"): text.decode() for name, text in headers}
    once_more = json.dumps(facts, separators=(",", ":"), ensure_ascii=False)
    return [str(length), header.replace(once_more, "<the headers>"), in_base64(data)]


def in_three(value: bytes) -> tuple[int, str, bytes]:
    """Cut a safetensors file: the length of the header, the header, the tensors."""
    length = int.from_bytes(value[:8], "little")
    return length, value[8 : 8 + length].decode(), value[8 + length :]


def in_base64(data: bytes) -> str:
    """Tell bytes."""
    return base64.b64encode(data).decode()


def is_mapping(message: Message) -> bool:
    """Whether a record is none of the dead letters."""
    return message.topic == "adapted-mappings"


def recorded() -> dict[str, list[str]]:
    """Read what was recorded of every case."""
    found: dict[str, list[str]] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def record(name: str, journal: list[str]) -> None:
    """Write a case anew, and drop those that are no more."""
    every = {**recorded(), name: journal}
    kept = {each: every[each] for each in CASES if each in every}
    RECORDED.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


# ---- the same by plain formulas, in fractions


@dataclass(frozen=True)
class Mlp:
    """f(x) = σo(W2·relu(W1·x + b1) + b2), σo relu or nothing."""

    w1_HD: Exact
    b1_H: Exact
    w2_EH: Exact
    b2_E: Exact
    rectified: bool = False

    def outputs(self, x_ND: Exact) -> Exact:
        """f of every row."""
        o_NE = relu(x_ND @ self.w1_HD.T + self.b1_H) @ self.w2_EH.T + self.b2_E
        return relu(o_NE) if self.rectified else o_NE

    def loss(self, x_ND: Exact, y_NE: Exact) -> Fraction:
        """The mean squared error."""
        return mean((self.outputs(x_ND) - y_NE) ** 2)

    def stepped(self, x_SD: Exact, y_SE: Exact, rates_4: Exact) -> Mlp:
        """θ one gradient step on."""
        z_SH = x_SD @ self.w1_HD.T + self.b1_H
        o_SE = self.outputs(x_SD)
        d_SE = (o_SE - y_SE) * Fraction(2, o_SE.size)
        if self.rectified:
            d_SE = d_SE * (o_SE > 0)
        dz_SH = (d_SE @ self.w2_EH) * (z_SH > 0)
        return Mlp(
            self.w1_HD - rates_4[0] * (dz_SH.T @ x_SD),
            self.b1_H - rates_4[1] * dz_SH.sum(0),
            self.w2_EH - rates_4[2] * (d_SE.T @ relu(z_SH)),
            self.b2_E - rates_4[3] * d_SE.sum(0),
            self.rectified,
        )

    def plus(self, factors: Mapping[str, Exact]) -> Mlp:
        """W1 + aᵀx, b1 + β, [W2, b2]·(I + n) + yᵀv."""
        w_EG = np.column_stack([self.w2_EH, self.b2_E])
        moved_EG = w_EG + w_EG @ factors["n"] + factors["y"].T @ factors["v"]
        return Mlp(
            self.w1_HD + factors["a"].T @ factors["x"],
            self.b1_H + factors["beta"],
            moved_EG[:, :-1],
            moved_EG[:, -1],
        )


def exact(numbers: NDArray[Any]) -> Exact:
    """Take numbers for what they are."""
    found = [Fraction(float(number)) for number in numbers.reshape(-1)]
    return np.array(found, dtype=object).reshape(numbers.shape)


def relu(numbers: Exact) -> Exact:
    """What is above 0."""
    return np.where(numbers > 0, numbers, 0)


def mean(numbers: Exact) -> Fraction:
    """The mean of all."""
    return Fraction(numbers.sum()) / numbers.size


def mlp_of(tensors: Mapping[str, NDArray[Any]], *, rectified: bool = False) -> Mlp:
    """Read w1, b1, w2, b2."""
    w1, b1, w2, b2 = (exact(tensors[name]) for name in ("w1", "b1", "w2", "b2"))
    return Mlp(w1, b1, w2, b2, rectified)


def same(one: Mlp, other: Mlp) -> bool:
    """Whether every weight is equal."""
    names = ("w1_HD", "b1_H", "w2_EH", "b2_E")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


PENALTIES = (0.001, 0.01, 0.15)


def ridge_of(x_ND: Exact, y_NE: Exact) -> tuple[NDArray[Any], NDArray[Any]]:
    """W (E, D) and c (E) of ridge regression, with the penalty that predicts each pair best from
    the others; in float64, each fit made anew."""
    x, y = x_ND.astype(np.float64), y_NE.astype(np.float64)
    unit = ((x - x.mean(0)) ** 2).sum() / len(x)

    def fit(x: NDArray[Any], y: NDArray[Any], penalty: float) -> tuple[Any, Any]:
        centred = x - x.mean(0)
        gram = centred.T @ centred + penalty * unit * np.eye(x.shape[1])
        w_ED = np.linalg.solve(gram, centred.T @ (y - y.mean(0))).T
        return w_ED, y.mean(0) - w_ED @ x.mean(0)

    def error(penalty: float) -> float:
        left_out = ((np.delete(x, i, 0), np.delete(y, i, 0), i) for i in range(len(x)))
        fits = [(*fit(xs, ys, penalty), i) for xs, ys, i in left_out]
        return float(sum(((w @ x[i] + c - y[i]) ** 2).sum() for w, c, i in fits))

    chosen = PENALTIES[0]
    for penalty in PENALTIES[1:]:
        chosen = penalty if error(penalty) < error(chosen) * (1 - 1e-3) else chosen
    return fit(x, y, chosen)


@dataclass(frozen=True)
class Wanted:
    """What a mapping must be, for a window of four pairs: two of support, two of query."""

    theta: Mlp
    adapted: Mlp
    """Adapted to all four."""
    losses: dict[str, Fraction]
    """By what was adapted to the support alone."""
    ridge_loss: float


def wanted(case: Case, stream: str, first: int) -> Wanted:
    """Compute it, for the window that begins with the stream's pair `first`."""
    x_4D = exact(STREAMS[stream].x_ND[first : first + 4])
    y_4E = exact(STREAMS[stream].y_NE[first : first + 4])
    x_SD, y_SE, x_QD, y_QE = x_4D[:2], y_4E[:2], x_4D[2:], y_4E[2:]
    theta = mlp_of(THETA, rectified=case.output == "relu")
    judged = adapted = theta
    for rates_4 in exact(case.rates):
        judged = judged.stepped(x_SD, y_SE, rates_4)
        adapted = adapted.stepped(x_4D, y_4E, rates_4)
    w_ED, c_E = ridge_of(x_SD, y_SE)
    losses = {
        "support-loss-before": theta.loss(x_SD, y_SE),
        "support-loss-after": judged.loss(x_SD, y_SE),
        "query-loss-before": theta.loss(x_QD, y_QE),
        "query-loss-after": judged.loss(x_QD, y_QE),
    }
    off_QE = x_QD.astype(np.float64) @ w_ED.T + c_E - y_QE.astype(np.float64)
    return Wanted(theta, adapted, losses, float((off_QE**2).mean()))


# ---- what readers get


@dataclass(frozen=True)
class Published:
    """A mapping as it is read without the project's code."""

    facts: Mapping[str, str]
    tensors: Mapping[str, NDArray[Any]]

    def loss(self, name: str) -> Fraction:
        """One of the losses."""
        return Fraction(float(self.facts[name.replace("-", "_")]))

    def multiplied_out(self, theta: Mlp) -> Mlp:
        """The whole mapping, whatever was sent; factors in float16 have scales."""
        if self.facts["encoding"] == "full":
            return mlp_of(self.tensors, rectified=theta.rectified)
        names = sorted(set(self.tensors) - {"scales"})
        if not names:
            return theta
        factors = {name: exact(self.tensors[name]) for name in names}
        if "scales" in self.tensors:
            scales = exact(self.tensors["scales"])
            factors = {name: factors[name] * by for name, by in zip(names, scales, strict=True)}
        return theta.plus(factors)


def published(message: Message) -> Published:
    """Read a mapping."""
    value = message.value or b""
    facts = json.loads(in_three(value)[1])["__metadata__"]
    return Published(facts, load_safetensors(value))


@pytest.mark.parametrize("name", CASES)
def test_every_published_number_is_what_plain_formulas_say(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    sent = [published(m) for m in serve(case, tmp_path).sent if is_mapping(m)]
    told = [(mapping.facts["stream"], mapping.facts["outcome"]) for mapping in sent]
    assert told == list(case.outcomes)
    assert [mapping.facts["encoding"] for mapping in sent] == list(case.forms)
    assert {mapping.facts["dtype"] for mapping in sent} == {case.dtype}
    for place, mapping in enumerate(sent):
        check(mapping, wanted(case, mapping.facts["stream"], 2 * (place == 1)))


def check(mapping: Published, want: Wanted) -> None:
    """Compare a mapping with what it must be, exactly."""
    for name, loss in want.losses.items():
        assert mapping.loss(name) == loss, name
    assert float(mapping.loss("query-loss-ridge")) == pytest.approx(want.ridge_loss, rel=1e-4)
    assert (mapping.facts["support_pairs"], mapping.facts["query_pairs"]) == ("4", "2")
    assert same(mapping.multiplied_out(want.theta), want.adapted)


@pytest.mark.parametrize("name", CASES)
def test_everything_on_the_wire_is_what_was_recorded(name: str, tmp_path: Path) -> None:
    journal = serve(CASES[name], tmp_path).journal
    if RECORD:
        record(name, journal)
        pytest.fail(f"recorded {name!r}; look at the difference, then run without ADAPTD_RECORD")
    assert journal == recorded().get(name)


def test_what_was_recorded_are_these_cases() -> None:
    assert list(recorded()) == list(CASES)
