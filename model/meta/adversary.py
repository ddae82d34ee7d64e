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
from model.meta.schedule import ramp


class Discriminator(nn.Module):
    """Two hidden layers; a logit above 0 says "a true target"."""

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
        """Logits (T, Q)."""
        h_TQI = y_TQE
        if self.conditioned:
            h_TQI = torch.cat([y_TQE, context_TE.unsqueeze(1).expand_as(y_TQE)], 2)
        first, second, last = self.layers
        h_TQH = functional.leaky_relu(first(h_TQI), 0.2)
        logits_TQ1: Tensor = last(functional.leaky_relu(second(h_TQH), 0.2))
        return logits_TQ1.squeeze(2)


def context_of(batch: EpisodeBatch) -> Tensor:
    """The mean of every stream's support targets (T, E)."""
    real_TS = batch.real_support_TS
    y_TSE = batch.y_support_TSE.masked_fill(~real_TS.unsqueeze(2), 0.0)
    return y_TSE.sum(1) * pair_weight(real_TS, 1, like=y_TSE).unsqueeze(1)


def discriminator_loss(
    discriminator: Discriminator, batch: EpisodeBatch, o_TQE: Tensor, penalty: float
) -> Tensor:
    """Every stream's loss (T); `o_TQE` counts as given."""
    real_TQ, context_TE = batch.real_query_TQ, context_of(batch)
    y_TQE = batch.y_query_TQE.masked_fill(~real_TQ.unsqueeze(2), 0.0).requires_grad_()
    true_TQ = discriminator(y_TQE, context_TE)
    false_TQ = discriminator(o_TQE.detach(), context_TE)
    loss_TQ = functional.softplus(-true_TQ) + functional.softplus(false_TQ)
    (slope_TQE,) = torch.autograd.grad(true_TQ.sum(), y_TQE, create_graph=True)
    loss_TQ = loss_TQ + 0.5 * penalty * slope_TQE.square().sum(2)
    return _mean_of_real(loss_TQ, real_TQ)


def output_loss(discriminator: Discriminator, batch: EpisodeBatch, o_TQE: Tensor) -> Tensor:
    """How badly every stream's outputs (T) pass for targets."""
    logits_TQ = discriminator(o_TQE, context_of(batch))
    return _mean_of_real(functional.softplus(-logits_TQ), batch.real_query_TQ)


def weight_at(progress: float, recipe: Recipe) -> float:
    """What the outputs' adversarial loss weighs at this share of the training."""
    adversary = recipe.adversary
    return adversary.weight * ramp(progress, adversary.ramp_start, adversary.ramp_end)


def _mean_of_real(values_TQ: Tensor, real_TQ: Tensor) -> Tensor:
    masked_TQ = values_TQ.masked_fill(~real_TQ, 0.0)
    return masked_TQ.sum(1) * pair_weight(real_TQ, 1, like=values_TQ)
