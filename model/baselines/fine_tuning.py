"""Joint training plus fine-tuning: gradient descent from a jointly trained mapping.

B = streams in batch, S = support pairs (padded), Q = query pairs, D = source dim, E = target dim

The usual alternative to meta-learning: the same mapping and the same kind of steps as an adapted
one, but from a start that was never trained to be adapted. The rate and the number of steps are
chosen on training streams, never on the streams it is judged on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.baselines.fit import MapTo
from model.baselines.joint import JointMapping
from model.losses import masked_mean_squared_error
from model.mappings.mlp import Activation, Mlp, apply_batched, expand
from model.meta.episodes import EpisodeBatch
from model.retrieval import euclidean_scores, scores_of
from model.values.arrays import FloatArray

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The mean squared error's gradient carries 1/E, so rates are as large as this."""
STEPS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """A fixed number of steps of full-batch gradient descent, all tensors at one rate."""

    start: JointMapping
    rate: float
    steps: int

    def fit(self, x_SD: FloatArray, y_SE: FloatArray) -> MapTo:
        """Descend on this support and return the mapping after the last step."""
        x_1SD, y_1SE = torch.tensor(x_SD)[None], torch.tensor(y_SE)[None]
        real_1S = torch.ones(1, len(x_SD), dtype=torch.bool)
        activation, mlp = self.start.activation, expand(self.start.mlp, 1)
        for _ in range(self.steps):
            mlp = _descended(mlp, x_1SD, y_1SE, real_1S, self.rate, activation)
        return JointMapping(Mlp(*(tensor[0] for tensor in mlp)), activation)


def choose_fine_tuning(
    start: JointMapping,
    batch: EpisodeBatch,
    rates: Sequence[float] = RATES,
    steps: Sequence[int] = STEPS,
) -> FineTuning:
    """Choose the rate and the number of steps with the best MRR on the queries of training streams
    (it is smoother than R@1).

    The best choice depends on the number of support pairs: draw the batch with as many as there
    will be.
    """
    found = {
        (rate, step): mean_reciprocal_rank(mlp, batch, start.activation)
        for rate in rates
        for step, mlp in fine_tuning_path(start, batch, rate, max(steps))
        if step in steps
    }
    rate, step = max(found, key=lambda choice: found[choice])
    return FineTuning(start, rate, step)


def fine_tuning_path(
    start: JointMapping, batch: EpisodeBatch, rate: float, steps: int
) -> Iterator[tuple[int, Mlp]]:
    """Yield every stream's mapping, stacked, after 1, 2, ... steps."""
    x, y, real = batch.x_support_BSD, batch.y_support_BSE, batch.real_support_BS
    mlp = expand(start.mlp, len(x))
    for step in range(1, steps + 1):
        mlp = _descended(mlp, x, y, real, rate, start.activation)
        yield step, mlp


def _descended(
    mlp: Mlp, x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor, rate: float, activation: Activation
) -> Mlp:
    """Return the mappings after one step of every stream. The streams' losses are added, so none
    changes another's gradient."""
    leaves = Mlp(*(tensor.detach().requires_grad_() for tensor in mlp))
    o_BSE = apply_batched(leaves, x_BSD, activation)
    loss = masked_mean_squared_error(o_BSE, y_BSE, real_BS).sum()
    gradients = torch.autograd.grad(loss, list(leaves))
    return Mlp(*(t.detach() - rate * g for t, g in zip(leaves, gradients, strict=True)))


def mean_reciprocal_rank(mlp: Mlp, batch: EpisodeBatch, activation: Activation) -> float:
    """Return the mean reciprocal rank, over all streams, of each query's own target among the
    targets of its stream's queries."""
    o_BQE = apply_batched(mlp, batch.x_query_BQD, activation)
    score_BQQ = euclidean_scores(o_BQE.numpy(), batch.y_query_BQE.numpy())
    real_BQ = batch.real_query_BQ.numpy()
    own_QQ = torch.eye(o_BQE.shape[1]).numpy()
    scores = scores_of(score_BQQ, own_QQ, real_BQ, real_BQ)
    return float(scores.mrr[scores.queries > 0].mean())
