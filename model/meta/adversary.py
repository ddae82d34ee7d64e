"""The discriminator of the adversarial generator: tells a stream's targets from outputs of θ′.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), E = target dim,
I = inputs of a layer, H = hidden units

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

    def forward(self, y_BQE: Tensor, context_BE: Tensor) -> Tensor:
        """Return logits (B, Q) of targets or outputs; `context_BE` is `context_of` their batch."""
        h_BQI = y_BQE
        if self.conditioned:
            h_BQI = torch.cat([y_BQE, context_BE.unsqueeze(1).expand_as(y_BQE)], 2)
        first, second, last = self.layers
        h_BQH = functional.leaky_relu(first(h_BQI), 0.2)
        logits_BQ1: Tensor = last(functional.leaky_relu(second(h_BQH), 0.2))
        return logits_BQ1.squeeze(2)


def context_of(batch: EpisodeBatch) -> Tensor:
    """Return the mean of every stream's support targets (B, E)."""
    real_BS = batch.real_support_BS
    y_BSE = batch.y_support_BSE.masked_fill(~real_BS.unsqueeze(2), 0.0)
    return y_BSE.sum(1) * pair_weight(real_BS, 1, like=y_BSE).unsqueeze(1)


def discriminator_loss(
    discriminator: Discriminator, batch: EpisodeBatch, o_BQE: Tensor, penalty: float
) -> Tensor:
    """Return the discriminator's loss on every stream (B), without a gradient for `o_BQE`.

    `penalty` is γ.
    """
    real_BQ, context_BE = batch.real_query_BQ, context_of(batch)
    y_BQE = batch.y_query_BQE.masked_fill(~real_BQ.unsqueeze(2), 0.0).requires_grad_()
    true_BQ = discriminator(y_BQE, context_BE)
    false_BQ = discriminator(o_BQE.detach(), context_BE)
    loss_BQ = functional.softplus(-true_BQ) + functional.softplus(false_BQ)
    (slope_BQE,) = torch.autograd.grad(true_BQ.sum(), y_BQE, create_graph=True)
    loss_BQ = loss_BQ + 0.5 * penalty * slope_BQE.square().sum(2)
    return _mean_of_real(loss_BQ, real_BQ)


def output_loss(discriminator: Discriminator, batch: EpisodeBatch, o_BQE: Tensor) -> Tensor:
    """Return the outputs' loss on every stream (B): large where they do not pass for targets."""
    logits_BQ = discriminator(o_BQE, context_of(batch))
    return _mean_of_real(functional.softplus(-logits_BQ), batch.real_query_BQ)


def weight_at(progress: float, recipe: Recipe) -> float:
    """Return the weight of the outputs' loss at a progress of 0 to 1: 0 before `ramp_start`, the
    recipe's from `ramp_end` on, a straight line between."""
    adversary = recipe.adversary
    start, end = adversary.ramp_start, adversary.ramp_end
    if progress < start:
        return 0.0
    share = 1.0 if progress >= end else (progress - start) / (end - start)
    return adversary.weight * share


def _mean_of_real(values_BQ: Tensor, real_BQ: Tensor) -> Tensor:
    masked_BQ = values_BQ.masked_fill(~real_BQ, 0.0)
    return masked_BQ.sum(1) * pair_weight(real_BQ, 1, like=values_BQ)
