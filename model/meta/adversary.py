"""The discriminator of the adversarial generator: tells a stream's targets from outputs of θ′.

T = streams in batch, Q = query pairs (padded), S = support pairs (padded), E = target dim

The non-saturating loss (Goodfellow et al. 2014, §3) with the R1 penalty, the squared gradient at
true targets (Mescheder et al. 2018, eq. 9), which lets both sides settle:

    discriminator   softplus(−D(y)) + softplus(D(o)) + γ/2·|∇_y D(y)|²
    outputs         softplus(−D(o))

each a mean over a stream's real query pairs. The paired loss pulls outputs towards the mean of
what could be meant; this pulls them back to where targets are. D sees a target alone, or with it
the mean of the stream's support targets, where streams have spaces of their own. It lives in
checkpoints; a published θ is a plain mapping.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.losses import pair_weight
from model.meta.episodes import EpisodeBatch
from model.meta.recipe import Recipe


class Discriminator(nn.Module):
    """Tells targets from outputs by two hidden layers; a logit above 0 says "a true target"."""

    def __init__(self, target_dim: int, recipe: Recipe) -> None:
        super().__init__()
        self.conditioned = recipe.adversary.condition == "support_mean"
        hidden = recipe.adversary.hidden_dim
        inputs = target_dim * (2 if self.conditioned else 1)
        self.layers = nn.ModuleList(
            [nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)]
        )
        seeds = torch.Generator().manual_seed(recipe.seed + 1)  # not the mapping's own numbers
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, nn.Linear)
                scale = (2.0 / layer.in_features) ** 0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=seeds) * scale)
                layer.bias.zero_()

    def forward(self, y_TQE: Tensor, context_TE: Tensor) -> Tensor:
        """Return logits (T, Q) of targets or outputs; `context_TE` is `context_of` their batch."""
        h_TQI = y_TQE
        if self.conditioned:
            h_TQI = torch.cat([y_TQE, context_TE.unsqueeze(1).expand_as(y_TQE)], 2)
        first, second, last = self.layers
        h_TQH = functional.leaky_relu(first(h_TQI), 0.2)
        logits_TQ1: Tensor = last(functional.leaky_relu(second(h_TQH), 0.2))
        return logits_TQ1.squeeze(2)


def context_of(batch: EpisodeBatch) -> Tensor:
    """Return the mean of every stream's support targets (T, E)."""
    real_TS = batch.real_support_TS
    y_TSE = batch.y_support_TSE.masked_fill(~real_TS.unsqueeze(2), 0.0)
    return y_TSE.sum(1) * pair_weight(real_TS, 1, like=y_TSE).unsqueeze(1)


def discriminator_loss(
    discriminator: Discriminator, batch: EpisodeBatch, o_TQE: Tensor, penalty: float
) -> Tensor:
    """Return the discriminator's loss on every stream (T), without a gradient for `o_TQE`.

    `penalty` is γ.
    """
    real_TQ, context_TE = batch.real_query_TQ, context_of(batch)
    y_TQE = batch.y_query_TQE.masked_fill(~real_TQ.unsqueeze(2), 0.0).requires_grad_()
    true_TQ = discriminator(y_TQE, context_TE)
    false_TQ = discriminator(o_TQE.detach(), context_TE)
    loss_TQ = functional.softplus(-true_TQ) + functional.softplus(false_TQ)
    (slope_TQE,) = torch.autograd.grad(true_TQ.sum(), y_TQE, create_graph=True)
    loss_TQ = loss_TQ + 0.5 * penalty * slope_TQE.square().sum(2)
    return _mean_of_real(loss_TQ, real_TQ)


def output_loss(discriminator: Discriminator, batch: EpisodeBatch, o_TQE: Tensor) -> Tensor:
    """Return the outputs' loss on every stream (T): large where they do not pass for targets."""
    logits_TQ = discriminator(o_TQE, context_of(batch))
    return _mean_of_real(functional.softplus(-logits_TQ), batch.real_query_TQ)


def weight_at(progress: float, recipe: Recipe) -> float:
    """Return the weight of the outputs' loss at a progress of 0 to 1: 0 before `ramp_start`, the
    recipe's from `ramp_end` on, a straight line between."""
    adversary = recipe.adversary
    start, end = adversary.ramp_start, adversary.ramp_end
    if progress < start:
        return 0.0
    share = 1.0 if progress >= end else (progress - start) / (end - start)
    return adversary.weight * share


def _mean_of_real(values_TQ: Tensor, real_TQ: Tensor) -> Tensor:
    masked_TQ = values_TQ.masked_fill(~real_TQ, 0.0)
    return masked_TQ.sum(1) * pair_weight(real_TQ, 1, like=values_TQ)
