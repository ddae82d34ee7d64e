"""One outer step's gradients, for every meta-learner and generator.

B = streams in batch, N = pairs of a stream (padded), S = support pairs (padded), Q = query pairs
(padded), D = source dim, E = target dim

    L(θ) = 1/B · Σ_b Σ_i weight_i · L_i(f_θ′(x_query), y_query),  θ′ = learner(start(θ), support)

The gradient runs through the very code that adapts in production, in whichever form
(`MetaParameters.query_outputs`). The learners decide how far:
through everything (MAML, Meta-SGD, ANIL, R2D2, Adam; exact second order), or with the inner
gradients as constants (FOMAML). Reptile has a rule of its own (Nichol et al. 2018, alg. 2):
θ ← θ + ε·mean(θ′ − θ), here as the gradient θ − mean θ′ under plain descent with rate ε. Its
inner steps take turns with parts of all of an episode's pairs: what they agree on is what
generalises (ibid., §5), and on one fixed batch there is nothing to agree on. Its loss is that of
those θ′ on the query, which they have seen: a cheap figure; validation has the honest one.

Losses are sums over this process's streams divided by the whole batch's B (`streams`), so that
gradients of several processes add up to one process's.
"""

import torch
from torch import Tensor

from model.inner.learner import Support
from model.losses import value
from model.mappings.mlp import expand
from model.meta.adversary import Discriminator, discriminator_loss, output_loss
from model.meta.episodes import EpisodeBatch
from model.meta.parameters import MetaParameters


def adapted_outputs(parameters: MetaParameters, batch: EpisodeBatch) -> Tensor:
    """Adapt every stream on its support. Return the outputs of its θ′ on its query (B, Q, E)."""
    return parameters.query_outputs(batch.support, _query_inputs(batch))


def paired_loss(parameters: MetaParameters, batch: EpisodeBatch, o_BQE: Tensor) -> Tensor:
    """Return the outer loss of every stream (B) for outputs `o_BQE` on its query: the recipe's
    losses, weighted and summed."""
    terms = parameters.recipe.outer_losses
    y_BQE, real_BQ = batch.y_query_BQE, batch.real_query_BQ
    return torch.stack([t.weight * value(t.loss, o_BQE, y_BQE, real_BQ) for t in terms]).sum(0)


def accumulate(parameters: MetaParameters, batch: EpisodeBatch, streams: int) -> Tensor:
    """Add the outer gradient of these streams to the parameters' gradients, by the rule of the
    recipe's learner. Return these streams' share of the outer loss, a scalar.

    `streams` is the number of streams of the whole batch, over all processes.
    """
    if not len(batch.x_support_BSD):
        return torch.zeros(())
    if parameters.recipe.learner == "reptile":
        return _accumulate_reptile(parameters, batch, streams)
    loss = paired_loss(parameters, batch, adapted_outputs(parameters, batch)).sum() / streams
    torch.autograd.backward(loss)
    return loss.detach()


def accumulate_discriminator(
    discriminator: Discriminator, batch: EpisodeBatch, o_BQE: Tensor, streams: int, penalty: float
) -> Tensor:
    """Add the discriminator's gradient for outputs `o_BQE` on these streams' queries. Return these
    streams' share of its loss, a scalar."""
    loss_B = discriminator_loss(discriminator, batch, o_BQE, penalty)
    loss = loss_B.sum() / streams
    torch.autograd.backward(loss, inputs=list(discriminator.parameters()))
    return loss.detach()


def accumulate_against(
    parameters: MetaParameters,
    discriminator: Discriminator,
    batch: EpisodeBatch,
    o_BQE: Tensor,
    streams: int,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Add the outer gradient of the paired loss plus `weight` times the adversarial one. Return
    these streams' shares of both, scalars.

    `o_BQE` are this batch's `adapted_outputs`, with their graph.
    """
    paired = paired_loss(parameters, batch, o_BQE).sum() / streams
    adversarial = output_loss(discriminator, batch, o_BQE).sum() / streams
    learned = [p for p in parameters.parameters() if p.requires_grad]
    torch.autograd.backward(paired + weight * adversarial, inputs=learned)
    return paired.detach(), adversarial.detach()


def _accumulate_reptile(parameters: MetaParameters, batch: EpisodeBatch, streams: int) -> Tensor:
    with torch.no_grad():
        count = len(batch.x_support_BSD)
        theta = parameters.theta()
        learner, parts = parameters.learner(), _minibatches(parameters, batch)
        state = learner.init(expand(theta, count), parts[0])
        while not learner.terminate(state):
            state = learner.step(state, parts[state.step % len(parts)])
        for tensor, moved_B in zip(theta, state.mlp, strict=True):
            gradient = (tensor - moved_B).sum(0) / streams
            tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient
        o_BQE = parameters.outputs(state.mlp, _query_inputs(batch))
        return paired_loss(parameters, batch, o_BQE).sum() / streams


def _query_inputs(batch: EpisodeBatch) -> Tensor:
    return batch.x_query_BQD.masked_fill(~batch.real_query_BQ.unsqueeze(2), 0.0)


def _minibatches(parameters: MetaParameters, batch: EpisodeBatch) -> list[Support]:
    """Deal all of an episode's pairs out in turn to the parts that reptile's steps use."""
    pairs = Support(
        torch.cat([batch.x_support_BSD, batch.x_query_BQD], 1),
        torch.cat([batch.y_support_BSE, batch.y_query_BQE], 1),
        torch.cat([batch.real_support_BS, batch.real_query_BQ], 1),
    ).cleaned()
    parts = min(parameters.recipe.minibatches, parameters.recipe.inner_steps)
    turn_BN = (pairs.real_BS.cumsum(1) - 1) % parts
    return [pairs._replace(real_BS=pairs.real_BS & (turn_BN == part)) for part in range(parts)]
