"""The usual inner loop is the readable reference's, and mappings that differ stop a benchmark."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from benchmarks.output import NoFigures
from benchmarks.stream.agreement import check_agreement
from benchmarks.stream.usual_worker import UsualInnerLoop
from benchmarks.stream.workload import Workload, stream_name
from model.inner.learner import Support
from model.inner.reference import adapt_one_stream
from model.inner.units import frame_of, in_frame, out_of_frame
from model.mappings.mlp import Mlp
from model.theta.meta_init import fresh_meta_init
from model.values.arrays import FloatArray
from model.values.low_rank import in_half

D, H, S, W = 6, 5, 4, 6
THETA = fresh_meta_init(D, D, H, steps=3)
WORKLOAD = Workload(dim=D, streams=8, partitions=2, window_size=W, seed=3)
STREAM = 3


class Kept(NamedTuple):
    """As much of a Kafka record as is looked at."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def record(tensors: dict[str, Any], offset: int, **facts: str) -> Kept:
    named = {"partition": str(STREAM % 2), "version": str(offset)} | facts
    headers = [(f"adaptd-{name}", text.encode()) for name, text in named.items()]
    return Kept(stream_name(STREAM).encode(), save(tensors), headers)


def adapted(offset: int) -> dict[str, FloatArray]:
    """What the daemon makes of the window, adapted one step at a time, in units of its targets."""
    x_WD, y_WD = map(torch.from_numpy, WORKLOAD.window(STREAM, offset))
    support = Support(x_WD[None], y_WD[None], torch.ones(1, W, dtype=torch.bool))
    frame = frame_of(support, standardise=False)
    framed = in_frame(support, frame)
    theta = Mlp(**{name: torch.tensor(tensor) for name, tensor in THETA.mapping.items()})
    rates_K4 = torch.tensor(THETA.learner.tensors["rates"])
    mlp = adapt_one_stream(theta, rates_K4, framed.x_BSD[0], framed.y_BSE[0], "gelu")
    whole = out_of_frame(Mlp(*(tensor[None] for tensor in mlp)), frame)
    return {name: tensor[0].numpy() for name, tensor in whole._asdict().items()}


def check(*records: Kept, dtype: str = "float32") -> float:
    return check_agreement(records, THETA, WORKLOAD, dtype)


OFFSETS = (5, 9, 13, 17)
"""The partition has 4 streams; STREAM's window is full from its first event on."""


def test_the_usual_inner_loop_is_the_reference_s() -> None:
    x_WD, y_WD = map(torch.from_numpy, WORKLOAD.window(STREAM, OFFSETS[0]))
    ours = UsualInnerLoop(THETA).adapted(x_WD[:S], y_WD[:S])
    theta = Mlp(**{name: torch.tensor(tensor) for name, tensor in THETA.mapping.items()})
    rates_K4 = torch.tensor(THETA.learner.tensors["rates"])
    expected = adapt_one_stream(theta, rates_K4, x_WD[:S], y_WD[:S], "gelu")
    for name, tensor in expected._asdict().items():
        assert not np.array_equal(tensor.numpy(), THETA.mapping[name])
        np.testing.assert_allclose(ours[name].numpy(), tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_mappings_of_their_windows_pass() -> None:
    assert check(*(record(adapted(offset), offset) for offset in OFFSETS)) < 1e-6


def test_the_usual_worker_s_are_of_the_support_alone() -> None:
    loop, records = UsualInnerLoop(THETA), []
    for offset in OFFSETS:
        x_WD, y_WD = map(torch.from_numpy, WORKLOAD.window(STREAM, offset))
        made = loop.adapted(x_WD[:S], y_WD[:S])
        records.append(record({name: t.numpy() for name, t in made.items()}, offset))
    assert check_agreement(records, THETA, WORKLOAD, "float32", support_size=S) < 1e-6
    with pytest.raises(NoFigures, match="differ"):
        check(*records)


def test_one_mapping_of_another_window_is_refused() -> None:
    records = [record(adapted(offset), offset) for offset in OFFSETS]
    stale = record(adapted(OFFSETS[-1]), 40)
    with pytest.raises(NoFigures, match="differ from the usual inner loop's"):
        check(*records, stale)


def test_a_mapping_that_is_not_a_number_is_refused() -> None:
    broken = adapted(OFFSETS[0]) | {"b1": np.full(H, np.nan, np.float32)}
    with pytest.raises(NoFigures, match="differ"):
        check(*(record(broken, OFFSETS[0]) for _ in range(4)))


def test_half_precision_is_allowed_its_rounding_and_no_more() -> None:
    halved = [
        record({name: t.astype(np.float16) for name, t in adapted(offset).items()}, offset)
        for offset in OFFSETS
    ]
    assert 1e-5 < check(*halved, dtype="float16") < 2e-3
    with pytest.raises(NoFigures, match="is allowed in float32"):
        check(*halved, dtype="float32")


def test_factors_are_multiplied_out_first() -> None:
    """With y = 1 and v = b2' the change of b2 alone is a product of factors of rank 1."""
    offset = OFFSETS[0]
    whole = adapted(offset)
    change_ED = np.concatenate(
        [whole["w2"] - THETA.mapping["w2"], (whole["b2"] - THETA.mapping["b2"])[:, None]], 1
    )
    a_DH = (whole["w1"] - THETA.mapping["w1"]).T
    eye_DD = np.eye(D, dtype=np.float32)
    factors = {"x": eye_DD, "a": a_DH, "beta": whole["b1"], "y": eye_DD, "v": change_ED}
    tensors = in_half(
        {name: np.ascontiguousarray(t) for name, t in factors.items()},
        lambda numbers: numbers.astype(np.float16),
    )
    records = [record(tensors, offset, encoding="lowrank") for _ in range(4)]
    assert 0 < check(*records, dtype="float16") < 2e-3


def test_fallbacks_do_not_count_as_compared() -> None:
    fallback = record(dict(THETA.mapping), OFFSETS[0], outcome="worse")
    with pytest.raises(NoFigures, match="only 0 adapted mappings"):
        check(*[fallback] * 8)
