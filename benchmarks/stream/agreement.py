"""Whether a worker's mappings are those that the usual inner loop makes of the same windows.

W = window size, D = source dim, E = target dim

No ratio is worth printing between workers that compute different things.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from benchmarks.output import NoFigures
from benchmarks.stream.topics import place_of
from benchmarks.stream.usual_worker import UsualInnerLoop
from benchmarks.stream.workload import Workload, stream_number
from daemon.wire.adapted_mapping import HEADER_PREFIX
from model.theta.meta_init import MetaInit
from model.values.low_rank import multiplied_out

TOLERANCES = {"float32": 1e-4, "float16": 2e-3}
"""Largest difference between two weights of a layer, over the layer's largest weight, by the
numbers that a mapping is published in. float16 rounds each factor by 2**-11 = 5e-4 at most."""
LEAST_CHECKED = 4

Tensors = Mapping[str, NDArray[np.floating[Any]]]


def check_agreement(
    records: Iterable[Any], theta: MetaInit, support_size: int, workload: Workload, dtype: str
) -> float:
    """Returns the largest difference found. Raises NoFigures when it is too large for numbers of
    this dtype, or too few of the records hold a θ′."""
    loop = UsualInnerLoop(theta)
    differences: list[float] = []
    checked = 0
    for record in records:
        if dict(record.headers).get(HEADER_PREFIX + "outcome", b"adapted") != b"adapted":
            continue
        stream, place = stream_number(record.key.decode()), place_of(record)
        x_WD, y_WE = workload.window(stream, place.offset)
        support = torch.from_numpy(x_WD[:support_size]), torch.from_numpy(y_WE[:support_size])
        expected = {name: t.numpy() for name, t in loop.adapted(*support).items()}
        ours = whole_mapping(record, theta)
        differences += [np.abs(ours[k] - t).max() / np.abs(t).max() for k, t in expected.items()]
        checked += 1
    if checked < LEAST_CHECKED:
        raise NoFigures(f"only {checked} adapted mappings to compare")
    largest = float(np.max(differences))  # a NaN stays one, which Python's own max would lose
    if not largest <= TOLERANCES[dtype]:
        raise NoFigures(
            f"mappings differ from the usual inner loop's by up to {largest:.2g} of their largest "
            f"weight; at most {TOLERANCES[dtype]:g} is allowed in {dtype}"
        )
    return largest


def whole_mapping(record: Any, theta: MetaInit) -> Tensors:
    """Returns a record's w1, b1, w2, b2, multiplied out if it holds factors."""
    tensors = load(record.value)
    if dict(record.headers).get(HEADER_PREFIX + "encoding") == b"lowrank":
        return multiplied_out(tensors, theta.mapping)
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}
