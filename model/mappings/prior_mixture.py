"""The mixture generator: attention's maps as prior means of a Bayesian regression on hidden units.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
U = numbers of an embedding (rows of the covariance factor), K = inner steps (here: the candidate
prior means), I = inputs of a layer

*How to think about it.* Attention (`model.mappings.attention`) turns a shared u(x), of E numbers,
into a tenant's space: right for rotations of a known space, and too narrow for a space of its own,
where a kernel on all H hidden units knows more (`model.inner.ridge_head`, alpaca). Which of the two
a stream is, its support says. So attention's maps become candidate prior means of the kernel:

    m_0 = 0,  m_1 = W·h + c (learned),  m_2 = R1·u (learned family),  m_3 = R2·u (Procrustes),
    m_4 = R·u + b (with ridge)

A small network reads evidence: how far each candidate is off on the support, and how far it would
be where the kernel explains each pair from the others alone (leave-one-out, as in
`model.inner.leave_one_out`); how well Grams agree; how many pairs there are. It gives shares π,
which sum to 1, and penalties λ and λb. With φ = P·h, Φ that of the support, κ the mean of |φ|²
there, D the pairs' weights by attention on the diagonal, and m = Σ π_k·m_k = M·h + a:

    C = (Φ·Φᵀ/(λκ) + 1·1ᵀ/λb + D⁻¹)⁻¹·(Y − m(X)),  W2 = M + Cᵀ·Φ·P/(λκ),  b2 = a + Cᵀ·1/λb

which is the posterior mean of a Gaussian process with the mean function m, the kernel
φ·φ/(λκ) + 1/λb, and noise of 1/w at a pair of weight w (Rasmussen and Williams 2006, §2.7). What
comes out is a plain mapping with θ's first layer. All of it is meta-trained through the solution.
No operation reads across streams.
"""

import math
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.mappings.attention import Attention, AttentionConfig, Readout, load_exactly, read_config
from model.mappings.mlp import Activation, Mlp, expand, hidden_batched, output_batched, sigma
from model.mappings.rotations import solve, times_vector
from model.mappings.set_encoder import SmallMlp
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

KIND = "mixture"
MEANS = 5
MAX_LOG = 10.0
"""Largest magnitude of log λ and log λb."""
MOST_WEIGHT = 20.0
LEAST = 1e-6
MAX_RANK = 1024


class PriorMeans(NamedTuple):
    """Candidate prior means, as heads on θ's hidden units."""

    w2_BKEH: Tensor
    b2_BKE: Tensor


class Solution(NamedTuple):
    """The head of every stream, and how it was chosen."""

    w2_BEH: Tensor
    b2_BE: Tensor
    share_BK: Tensor
    """π."""
    penalties_B2: Tensor
    """λ and λb."""


class Mixture(nn.Module):
    """The mixture generator with its parameters."""

    def __init__(self, config: AttentionConfig, hidden_dim: int, rank: int) -> None:
        """Draws parameters from torch's global generator. `rank` is the number of P's rows."""
        super().__init__()
        self.attention = Attention(config)
        self.factor_UH = nn.Parameter(torch.randn(rank, hidden_dim) / math.sqrt(rank))
        self.mean_EH = nn.Parameter(torch.zeros(config.target_dim, hidden_dim))
        self.mean_E = nn.Parameter(torch.zeros(config.target_dim))
        self.log_usual = nn.Parameter(torch.tensor(-1.0))  # λ of the leave-one-out evidence
        self.decide = SmallMlp((-2.0, 0.0, -1.0, 0.0, 1.0, 2.0, 2.0))  # logarithms of π, λ, λb

    @classmethod
    def fresh(cls, config: AttentionConfig, hidden_dim: int, rank: int, seed: int) -> "Mixture":
        """Returns a generator with random parameters, by the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config, hidden_dim, rank)

    def start(
        self, theta: Mlp, x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor, activation: Activation
    ) -> Mlp:
        """Returns each stream's mapping; see `Attention.start`, whose promises hold here too."""
        padded_BS1 = ~real_BS.unsqueeze(2)
        x_BSD, y_BSE = x_BSD.masked_fill(padded_BS1, 0.0), y_BSE.masked_fill(padded_BS1, 0.0)
        shared = expand(theta, len(y_BSE))
        h_BSH = sigma(activation)(hidden_batched(shared, x_BSD)).masked_fill(padded_BS1, 0.0)
        u_BSE = output_batched(shared, h_BSH)
        read = self.attention.read_out(x_BSD, u_BSE, y_BSE, real_BS)
        found = self.solved(shared, h_BSH, y_BSE, read)
        return Mlp(shared.w1, shared.b1, found.w2_BEH, found.b2_BE)

    def solved(self, shared: Mlp, h_BSH: Tensor, y_BSE: Tensor, read: Readout) -> Solution:
        """Returns the heads, from hidden features and targets that are 0 where padded."""
        means = self._means(shared, read)
        made_BKSE = torch.matmul(h_BSH.unsqueeze(1), means.w2_BKEH.transpose(2, 3))
        made_BKSE = made_BKSE + means.b2_BKE.unsqueeze(2)
        root_BS1 = read.w_BS.clamp(0.0, MOST_WEIGHT).sqrt().unsqueeze(2)
        off_BKSE = (y_BSE.unsqueeze(1) - made_BKSE) * root_BS1.unsqueeze(1)
        phi_BSU, moved_BSH = self._unit_features(h_BSH, read.real_BS)
        phi_BSU, total_B1 = phi_BSU * root_BS1, (y_BSE * root_BS1).square().sum((1, 2))[:, None]
        gram_BSS = torch.bmm(phi_BSU, phi_BSU.transpose(1, 2))
        ones_BSS = root_BS1 * root_BS1.transpose(1, 2)
        decided = self._decided(read, (gram_BSS, ones_BSS), off_BKSE, total_B1)
        share_BK = decided[:, :MEANS].softmax(1)
        precisions = decided[:, MEANS:].clamp(-MAX_LOG, MAX_LOG).neg().exp()
        p_B11, pb_B11 = (t.view(-1, 1, 1) for t in precisions.unbind(1))
        one_SS = torch.eye(gram_BSS.shape[1], dtype=h_BSH.dtype, device=h_BSH.device)
        mean_off_BSE = (share_BK[:, :, None, None] * off_BKSE).sum(1)
        c_BSE = solve(gram_BSS * p_B11 + ones_BSS * pb_B11 + one_SS, mean_off_BSE) * root_BS1
        mean_BEH = (share_BK[:, :, None, None] * means.w2_BKEH).sum(1)
        w2_BEH = torch.baddbmm(mean_BEH, (c_BSE * p_B11).transpose(1, 2), moved_BSH)
        b2_BE = (share_BK.unsqueeze(2) * means.b2_BKE).sum(1) + (c_BSE * pb_B11).sum(1)
        return Solution(w2_BEH, b2_BE, share_BK, precisions.reciprocal())

    def spec(self) -> PartSpec:
        """Returns the generator as a part of θ, which `from_spec` reads."""
        tensors = {n: t.detach().cpu().numpy().copy() for n, t in self.state_dict().items()}
        sizes = asdict(self.attention.config) | {"rank": len(self.factor_UH)}
        return PartSpec({"kind": KIND} | sizes, tensors)

    @classmethod
    def from_spec(
        cls, spec: PartSpec, source_dim: int, hidden_dim: int, target_dim: int
    ) -> "Mixture":
        """Returns the generator that `spec` wrote. Raises BadMetaInit unless it fits θ's dims."""
        rank = spec.config.get("rank")
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise BadMetaInit(f"{KIND}: rank is {rank!r}, not an integer 1..{MAX_RANK}")
        sizes = {name: value for name, value in spec.config.items() if name != "rank"}
        config = read_config(sizes, KIND, source_dim, target_dim)
        with torch.device("meta"):  # shapes are judged before memory is taken
            mixture = cls(config, hidden_dim, rank)
        load_exactly(mixture, spec.tensors, KIND)
        return mixture

    def _means(self, shared: Mlp, read: Readout) -> PriorMeans:
        streams, e, hidden = shared.w2.shape
        learned_EH = functional.pad(self.mean_EH, (0, hidden - self.mean_EH.shape[1]))
        heads = [torch.zeros_like(shared.w2), learned_EH.expand(streams, -1, -1)]
        biases = [torch.zeros_like(shared.b2), self.mean_E.expand(streams, -1)]
        for matrix_BEE in (read.family_BEE, read.rotation_BEE, read.matrix_BEE):
            own_BEE = matrix_BEE[:, :e, :e].contiguous()
            heads.append(torch.bmm(own_BEE, shared.w2))
            biases.append(times_vector(own_BEE, shared.b2))
        biases[-1] = biases[-1] + read.bias_BE[:, :e]
        return PriorMeans(torch.stack(heads, 1), torch.stack(biases, 1))

    def _unit_features(self, h_BSH: Tensor, real_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Φ/√κ (B, S, U), and Φ·P/κ (B, S, H), by whose rows W2 moves."""
        idle = h_BSH.shape[2] - self.factor_UH.shape[1]
        factor_BUH = functional.pad(self.factor_UH, (0, idle)).expand(len(h_BSH), -1, -1)
        phi_BSU = torch.bmm(h_BSH, factor_BUH.transpose(1, 2))
        n_B = real_BS.sum(1).clamp(min=1)
        kappa_B11 = (phi_BSU.square().sum((1, 2)) / n_B + LEAST).view(-1, 1, 1)
        return phi_BSU / kappa_B11.sqrt(), torch.bmm(phi_BSU / kappa_B11, factor_BUH)

    def _decided(
        self, read: Readout, grams: tuple[Tensor, Tensor], off_BKSE: Tensor, total_B1: Tensor
    ) -> Tensor:
        """Logarithms of π (unnormalised), λ and λb."""
        gram_BSS, ones_BSS = grams
        one_SS = torch.eye(gram_BSS.shape[1], dtype=gram_BSS.dtype, device=gram_BSS.device)
        covariance_BSS = gram_BSS * self.log_usual.neg().exp() + ones_BSS + one_SS
        inverse_BSS = solve(covariance_BSS, one_SS.expand_as(covariance_BSS))
        own_BS1 = inverse_BSS.diagonal(dim1=1, dim2=2).unsqueeze(2)
        left_out_BKSE = torch.matmul(inverse_BSS.unsqueeze(1), off_BKSE) / own_BS1.unsqueeze(1)
        logs_BK = [
            ((t.square().sum((2, 3)) + LEAST) / (total_B1 + LEAST)).log()
            for t in (left_out_BKSE, off_BKSE[:, 1:])
        ]
        known = read.known
        evidence = (
            *torch.cat(logs_BK, 1).unsqueeze(1).unbind(2),
            known.count_B1,
            known.kept_B1,
            known.spread_B1,
            read.explained_B1,
            read.refit_B1,
            known.empty_B1,
        )
        return torch.cat(self.decide(_as_it_is, *evidence), 1)


def _as_it_is(decisions: Tensor) -> Tensor:
    return decisions
