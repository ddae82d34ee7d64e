"""Whether a worker's mappings are those that the usual inner loop makes of the same windows.

W = window size, N = pairs of a stream, D = source dim, E = target dim, X = source or target dim

The usual worker adapts to a window's support, as it is. The daemon publishes what it adapted to the
whole window, in units of its targets: the usual inner loop gets the same pairs in the same units,
which are made here apart from the daemon's code.

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
USUAL, FAMILIAR, NEAR_ONE = 0.35, 1.25, 2.0**-6
"""The daemon's own bounds (docs/model.md, "Units")."""

Tensors = Mapping[str, NDArray[np.floating[Any]]]


def check_agreement(
    records: Iterable[Any],
    theta: MetaInit,
    workload: Workload,
    dtype: str,
    support_size: int | None = None,
) -> float:
    """Returns the largest difference found. `support_size` is of the usual worker; None means that
    the daemon made the records. Raises NoFigures when it is too large for numbers of
    this dtype, or too few of the records hold a θ′."""
    loop = UsualInnerLoop(theta)
    differences: list[float] = []
    checked = 0
    for record in records:
        if dict(record.headers).get(HEADER_PREFIX + "outcome", b"adapted") != b"adapted":
            continue
        stream, place = stream_number(record.key.decode()), place_of(record)
        x_WD, y_WE = workload.window(stream, place.offset)
        if support_size is None:
            expected = adapted_in_units(loop, x_WD, y_WE)
        else:
            expected = plainly_adapted(loop, x_WD[:support_size], y_WE[:support_size])
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


def plainly_adapted(
    loop: UsualInnerLoop, x_ND: NDArray[np.float32], y_NE: NDArray[np.float32]
) -> Tensors:
    """Returns w1, b1, w2, b2 of the loop on these pairs."""
    made = loop.adapted(torch.from_numpy(x_ND), torch.from_numpy(y_NE))
    return {name: tensor.numpy() for name, tensor in made.items()}


def adapted_in_units(
    loop: UsualInnerLoop, x_WD: NDArray[np.float32], y_WE: NDArray[np.float32]
) -> Tensors:
    """Returns w1, b1, w2, b2 of the loop on sources and targets less the share of their mean that
    stands out, and divided by the root mean square of what is left; familiar sources are not."""
    z_D, r = centre_and_scale(x_WD)
    if 1.0 / FAMILIAR <= r <= FAMILIAR:
        r = np.float32(1.0)
    c_E, s = centre_and_scale(y_WE)
    x_WD, y_WE = ((x_WD - z_D) / r).astype(np.float32), ((y_WE - c_E) / s).astype(np.float32)
    tensors = plainly_adapted(loop, x_WD, y_WE)
    w1 = tensors["w1"] / r
    return {"w1": w1, "b1": tensors["b1"] - w1 @ z_D} | {
        "w2": tensors["w2"] * s,
        "b2": tensors["b2"] * s + c_E,
    }


def centre_and_scale(t_WX: NDArray[np.float32]) -> tuple[NDArray[np.float32], np.float32]:
    """Returns what is subtracted from one side's pairs, and what they are then divided by."""
    n, mean_X = len(t_WX), t_WX.mean(0)
    variance = float(np.square(t_WX - mean_X).sum()) / (n - 1)
    effect = float(mean_X @ mean_X) / variance
    share = max(0.0, 1.0 - ((1.0 / n + USUAL) / effect) ** 2)
    centre_X = np.float32(share) * mean_X
    scale = np.sqrt(np.square(t_WX - centre_X).mean())
    return centre_X, np.float32(1.0) if abs(scale - 1.0) <= NEAR_ONE else scale


def whole_mapping(record: Any, theta: MetaInit) -> Tensors:
    """Returns a record's w1, b1, w2, b2, multiplied out if it holds factors."""
    tensors = load(record.value)
    if dict(record.headers).get(HEADER_PREFIX + "encoding") == b"lowrank":
        return multiplied_out(tensors, theta.mapping)
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}
