"""Data that are no emoji: scikit-learn's digits, by a θ that was never meta-trained.

N = pairs of a stream, S = support pairs, Q = query pairs, Y = candidates (the ten classes),
D = source dim (64 pixels), E = target dim

A stream pairs pictures of handwritten digits with its own rotation of one embedding of the ten
classes, and a little noise. What a newcomer gets from `adaptd new-theta` is compared with ridge
regression as a newcomer would fit it: on the whole window, its penalty by leave-one-out. So is a θ
that was meta-trained on other streams, of other pictures (`model.evaluate.digits_training`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.baselines.fit import MapTo
from model.evaluate import comparison
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.data_rows import DataCell, DataRow, data_cell
from model.evaluate.digits_training import RECIPE, DigitsEpisodes, trained_on_digits
from model.evaluate.episodes import GATE_PAIRS, MetaTestEpisode
from model.evaluate.methods import Method
from model.evaluate.result_table import ResultTable
from model.meta.fresh import fresh_theta_of_kind
from model.retrieval import recall_at_1
from model.values.arrays import FloatArray
from model.values.errors import BadData

Digits = NDArray[np.int64]
"""The digit that each picture shows."""
DIGITS = "digits"
CLASSES = 10
BRIGHTEST = 16.0
TARGET_DIM = 16
HIDDEN_DIM = 128
NOISE = 0.1
"""Standard deviation of the noise on each target number; class vectors have norm √E."""
PENALTIES = np.geomspace(1e-4, 1e4, 33)
"""Ridge's penalties to choose among, relative to the mean diagonal of the Gram matrix."""


@dataclass(frozen=True, slots=True)
class DigitsOptions:
    """How large the evaluation on digits is."""

    streams: int = 40
    events: int = 36
    """Pairs of each stream: all are the window, the newest 4 of them judge."""
    queries: int = 200
    """Further pictures that a stream is judged on."""
    seed: int = 0
    sizes: tuple[int, ...] = (5, 16, 64)
    """Pairs to adapt a meta-trained θ to."""
    steps: int = 400
    """Outer steps of its training."""


@dataclass(frozen=True, slots=True)
class DigitsStream:
    """One stream's window, and further pictures."""

    episode: MetaTestEpisode
    class_vectors_YE: FloatArray
    digit_Q: Digits
    """The class of each query."""


def load_pictures() -> tuple[FloatArray, Digits]:
    """Return the pixels, 0 to 16 (1,797, 64), and the digits of scikit-learn's pictures.

    Raises BadData where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise BadData("scikit-learn is not installed; pip install scikit-learn") from e
    pixels_ND, digit_N = load_digits(return_X_y=True)
    return np.asarray(pixels_ND, np.float32), np.asarray(digit_N, np.int64)


def judge_digits(options: DigitsOptions) -> ResultTable:
    """Return R@1 among the class vectors, for the same pictures in three units.

    Raises BadData where scikit-learn is not installed.
    """
    began = time.process_time()
    pixels_ND, digit_N = load_pictures()
    unit_ND = pixels_ND / np.linalg.norm(pixels_ND, axis=1, keepdims=True)
    theta = fresh_theta_of_kind((pixels_ND.shape[1], HIDDEN_DIM, TARGET_DIM), seed=options.seed)
    support = options.events - GATE_PAIRS
    engine = comparison.engine_for(theta, MetaTestPlan((support,)))
    compared = comparison.meta_learned(engine) | {"ridge": ridge_of_window}
    rows = []
    for name, x_ND in (
        ("pixels from 0 to 16", pixels_ND),
        ("pixels from 0 to 1", pixels_ND / np.float32(BRIGHTEST)),
        ("pictures of unit length", unit_ND),
    ):
        streams = digit_streams(x_ND, digit_N, options)
        rows.append(DataRow("new-theta", name, (_cell(compared, streams, options.events),)))
    rows.append(_meta_trained(unit_ND, digit_N, options))
    return ResultTable(
        DIGITS,
        f"scikit-learn's digits, {options.events} events of each stream, a new θ",
        options.streams,
        notes=(
            "ridge: on all events, its penalty by leave-one-out; R@1 is among ten classes",
            f"meta-trained: {options.steps} steps on half of the pictures, judged on the others "
            f"with {' / '.join(map(str, options.sizes))} pairs to adapt to",
        ),
        data_rows=tuple(rows),
        cpu_s=time.process_time() - began,
    )


def _meta_trained(x_ND: FloatArray, digit_N: Digits, options: DigitsOptions) -> DataRow:
    half = np.arange(len(x_ND)) % 2 == 0
    source = DigitsEpisodes(
        x_ND[half],
        digit_N[half],
        _class_vectors(options.seed).astype(np.float32),
        NOISE,
        RECIPE.episode_sizes(),
    )
    theta = trained_on_digits(source, options.steps, options.seed)
    engine = comparison.engine_for(theta, MetaTestPlan((max(options.sizes),)))
    compared = comparison.meta_learned(engine) | {"ridge": ridge_of_window}
    cells = []
    for pairs in options.sizes:
        sized = replace(options, events=pairs + GATE_PAIRS)
        streams = digit_streams(x_ND[~half], digit_N[~half], sized)
        cells.append(_cell(compared, streams, pairs))
    return DataRow("meta-trained", "pictures of unit length", tuple(cells))


def digit_streams(x_ND: FloatArray, digit_N: Digits, options: DigitsOptions) -> list[DigitsStream]:
    """Make the streams: what is random about one depends on the seed and its number alone."""
    class_YE = _class_vectors(options.seed)
    return [_stream(x_ND, digit_N, class_YE, n, options) for n in range(options.streams)]


def _class_vectors(seed: int) -> NDArray[np.float64]:
    class_YE = np.random.default_rng(seed).standard_normal((CLASSES, TARGET_DIM))
    class_YE *= np.sqrt(TARGET_DIM) / np.linalg.norm(class_YE, axis=1, keepdims=True)
    return class_YE


def _stream(
    x_ND: FloatArray,
    digit_N: Digits,
    class_YE: NDArray[np.float64],
    number: int,
    options: DigitsOptions,
) -> DigitsStream:
    rng = np.random.default_rng([options.seed, number])
    rotation_EE, upper_EE = np.linalg.qr(rng.standard_normal((TARGET_DIM, TARGET_DIM)))
    rotated_YE = (class_YE @ (rotation_EE * np.sign(np.diag(upper_EE)))).astype(np.float32)
    rows = rng.permutation(len(x_ND))[: options.events + options.queries]
    noise_NE = NOISE * rng.standard_normal((len(rows), TARGET_DIM))
    x, y = x_ND[rows], (rotated_YE[digit_N[rows]] + noise_NE).astype(np.float32)
    support, events = options.events - GATE_PAIRS, options.events
    judged = slice(support, events)
    episode = MetaTestEpisode(
        f"digits {number}", x[:support], y[:support], x[judged], y[judged], x[events:], y[events:]
    )
    return DigitsStream(episode, rotated_YE, digit_N[rows[events:]])


def ridge_of_window(episodes: Sequence[MetaTestEpisode]) -> list[FloatArray]:
    """Fit `fit_by_leave_one_out` on each whole window and return its outputs on the query."""
    return [
        fit_by_leave_one_out(
            np.concatenate([e.x_SD, e.x_gate_ND]), np.concatenate([e.y_SE, e.y_gate_NE])
        )(e.x_QD)
        for e in episodes
    ]


def fit_by_leave_one_out(x_ND: FloatArray, y_NE: FloatArray) -> MapTo:
    """Fit ridge regression with the penalty of the smallest leave-one-out squared error.

    With an intercept that is not penalised. Written apart from `model.baselines.ridge`, against
    which this is a check: in the primal, by the diagonal of the hat matrix, in float64.
    """
    x_mean_D, y_mean_E = x_ND.mean(axis=0, dtype=np.float64), y_NE.mean(axis=0, dtype=np.float64)
    x, y = x_ND - x_mean_D, y_NE - y_mean_E
    gram_DD, scale = x.T @ x, np.square(x).sum() / len(x)
    best, best_error = np.zeros((x.shape[1], y.shape[1])), np.inf
    for penalty in PENALTIES * scale:
        inverse_DN = np.linalg.solve(gram_DD + penalty * np.eye(len(gram_DD)), x.T)
        weight_DE = inverse_DN @ y
        leverage_N = 1.0 / len(x) + np.einsum("nd,dn->n", x, inverse_DN)
        left_out_NE = (y - x @ weight_DE) / (1.0 - leverage_N)[:, np.newaxis]
        if (error := np.square(left_out_NE).sum()) < best_error:
            best, best_error = weight_DE, error
    return lambda x_ND: np.asarray((x_ND - x_mean_D) @ best + y_mean_E, np.float32)


def _cell(compared: dict[str, Method], streams: Sequence[DigitsStream], pairs: int) -> DataCell:
    episodes, names = [s.episode for s in streams], [s.episode.stream for s in streams]
    found = {
        name: [
            recall_at_1(o_QE, s.class_vectors_YE, s.digit_Q)
            for s, o_QE in zip(streams, run(episodes), strict=True)
        ]
        for name, run in compared.items()
    }
    return data_cell(pairs, names, found)
