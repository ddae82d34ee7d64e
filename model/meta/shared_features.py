"""Features that all streams share, up to a rotation of each stream's own: where a mapping begins.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream (padded), D = source
dim, E = target dim

φ minimises Σ_t min_R |φ(X_t)·R − Y_t|² over orthogonal R, that is, it learns the targets' space up
to one rotation of all of it (generalised Procrustes analysis, Gower 1975). The best R is had in
closed form, and, being the minimiser, it may be held fixed in φ's gradient (variable projection,
Golub & Pereyra 1973). A generator that turns φ into each stream's space has most of its work done
when the outer loop begins.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.losses import masked_mean_squared_error
from model.mappings.mlp import apply
from model.meta.episodes import EpisodeBatch, EpisodeSource
from model.meta.loop import run
from model.meta.parameters import MetaParameters
from model.meta.progress import Progress, TrainingSchedule, seeded
from model.meta.state import TrainingState

RATE = 3e-3
"""Adam's peak rate."""


def train_shared_features(
    parameters: MetaParameters,
    source: EpisodeSource,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train θ's mapping, in place, for the recipe's `shared_steps` on `rotated_loss` of all pairs.
    Raises Diverged."""
    recipe, theta = parameters.recipe, parameters.mapping
    state = TrainingState(theta, torch.optim.Adam(theta.values(), lr=RATE), name="shared features")

    def accumulate(step: int) -> dict[str, float]:
        batch = source.draw(seeded(recipe.seed, "shared features", step), recipe.streams)
        x_BND, y_BNE, real_BN = all_pairs(batch)
        o_BNE = apply(parameters.theta(), x_BND, recipe.activation)
        loss = rotated_loss(o_BNE, y_BNE, real_BN)
        torch.autograd.backward(loss)
        return {"outer_loss": loss.item()}

    run(state, TrainingSchedule(recipe.shared_steps), accumulate, on_step=on_step)


def rotated_loss(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """Return the mean squared error after each stream's best rotation of its outputs."""
    with torch.no_grad():
        weighted_BNE = o_BNE.masked_fill(~real_BN.unsqueeze(2), 0.0)
        cross_BEE = weighted_BNE.transpose(1, 2) @ y_BNE
        # what is not finite makes the loss so, which the outer loop skips; the SVD would raise
        u, _, vh = torch.linalg.svd(cross_BEE.nan_to_num(0.0, 0.0, 0.0))
        rotation_BEE = u @ vh
    return masked_mean_squared_error(o_BNE @ rotation_BEE, y_BNE, real_BN).mean()


def all_pairs(batch: EpisodeBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and which pairs are real, of support and query together."""
    return (
        torch.cat([batch.x_support_BSD, batch.x_query_BQD], 1),
        torch.cat([batch.y_support_BSE, batch.y_query_BQE], 1),
        torch.cat([batch.real_support_BS, batch.real_query_BQ], 1),
    )
