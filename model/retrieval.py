"""How often a mapping's output finds the right item among candidates.

N = queries, C = candidates, E = target dim
"""

import numpy as np
from numpy.typing import NDArray


def recall_at_1(
    predicted_NE: NDArray[np.float32],
    candidates_CE: NDArray[np.float32],
    truth_N: NDArray[np.int64],
) -> float:
    """The share of queries whose true candidate is strictly the nearest by Euclidean distance.

    Ties count against us, and a score that is not finite ranks last. 0 queries give NaN.
    """
    if not len(predicted_NE):
        return float("nan")
    with np.errstate(over="ignore", invalid="ignore"):
        # |p − c|² without |p|², which is the same for all candidates
        dot_NC = predicted_NE @ candidates_CE.T
        score_NC = 2.0 * dot_NC - np.square(candidates_CE).sum(1)
    score_NC = np.where(np.isfinite(score_NC), score_NC, -np.inf)
    rows_N = np.arange(len(truth_N))
    true_N = score_NC[rows_N, truth_N]
    others_NC = score_NC.copy()
    others_NC[rows_N, truth_N] = -np.inf
    return float(np.mean(true_N > others_NC.max(1)))
