"""The attention generator: a stream's few support pairs move the mapping far, in closed form.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units,
E = target dim, L = learned numbers in one vector (degrees of freedom of the learned family),
U = numbers of an embedding (the context), I = inputs of a layer; inside, D and E are padded to
whole cache lines

*How to think about it.* A stream's task is to turn features u(x), which all streams share, into its
own space: y ≈ R·u(x) + b. With few pairs R must be guessed from a family of maps that meta-training
has seen; with many it can be solved for. So R is found from the narrowest family to the widest (a
few learned degrees of freedom, any rotation, any matrix), each the prior of the next, and what
decides how far each is trusted is evidence: numbers about the support that need no fitting. All of
it is closed forms between small decisions; without the decisions it is Procrustes and ridge
regression, with which tests/model/test_attention.py compares its parts.

θ = (w1, b1, w2, b2) is a feature map u(x) shared by all streams; a stream's mapping is R·u(x) + b,
so a plain Mlp with w2 = R·θ.w2 and b2 = R·θ.b2 + b. From the support, in turn:

1. Each pair gets a weight: how well do its inner products with the other pairs agree between the
   u's and the y's (which a rotation leaves as they are), and how long are u and y.
2. Self-attention over the pairs (`set_encoder`), and their orthogonal Procrustes solution, give a
   context; from it come coordinates on a learned family of rotations, refined by Gauss-Newton
   steps on the support (`rotations.Manifold`): R1. A tenant of that family is known from a few
   pairs.
3. Orthogonal Procrustes with R1 as a prior worth κ pairs (Schönemann 1966, by Newton-Schulz): R2.
   κ is a function of the evidence: how well R1 explains the support, and how many pairs there are.
4. Repair: u(x) of a support pair can be wrong, as its picture can be misread; its target, turned
   back by R2, says otherwise. A learned correction of u sees both, and x. Then weights, R1 and R2
   are found again. All of this a few times.
5. A ridge step from s·R2, with an intercept: R = (Σ w·y·uᵀ + λ·s·R2)·(Σ w·u·uᵀ + λ·I)⁻¹, λ and
   the shrinkage s functions of the evidence, so that a stream whose map is no rotation gets its
   own linear map.

Every part is differentiable and is meta-trained through the closed forms (Bertinetto et al. 2019).
No operation reads across streams.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.mappings.mlp import Activation, Mlp, apply_batched, expand
from model.mappings.rotations import (
    MAX_COORDINATES,
    Manifold,
    times_vector,
    towards_orthogonal,
)
from model.mappings.set_encoder import (
    EVIDENCE,
    Evidence,
    Pairs,
    SetEncoder,
    SmallMlp,
    evidence_of,
    explained_of,
    fit_of,
    linear,
    ridge_towards,
    weighted,
)
from model.theta.part import PartSpec
from model.values.arrays import FloatArray, aligned
from model.values.errors import BadMetaInit

KIND = "attention"
CONTEXT_DIM = 128
CONTEXT_POLAR_STEPS = 6
REPAIR_DIM = 256
EVEN = math.log(math.e - 1.0)
"""softplus(EVEN) = 1: before training all pairs weigh the same."""
MAX_LOG = 12.0
"""Largest magnitude of log κ and log λ: evidence unlike any in training gives no infinity."""
LIMITS = {
    "source_dim": (1, 65_536),
    "target_dim": (1, 512),
    "width": (16, 1024),
    "heads": (1, 64),
    "blocks": (0, 16),
    "generators": (4, 64),
    "refinements": (0, 16),
    "repairs": (0, 16),
}


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Sizes of an attention generator, all integers. Raises BadMetaInit for ones that cannot be."""

    source_dim: int
    """D."""
    target_dim: int
    """E."""
    width: int = 64
    """U, of a token: a multiple of 16·heads."""
    heads: int = 4
    blocks: int = 2
    """Self-attention blocks."""
    generators: int = 4
    """L, degrees of freedom of the learned family of rotations: a multiple of 4."""
    refinements: int = 2
    """Gauss-Newton steps, each time that R1 is found."""
    repairs: int = 2
    """Rounds of repair, step 4."""

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise BadMetaInit(f"attention: {name} is {value!r}, not an integer {low}..{high}")
        if self.width % (16 * self.heads):
            raise BadMetaInit(f"attention: width {self.width} is no multiple of 16·heads")
        if self.generators % 4:
            raise BadMetaInit(f"attention: generators {self.generators} is no multiple of 4")


class Readout(NamedTuple):
    """What the support says: matrices that map u to y. R1 and R2 are for training to look at."""

    matrix_BEE: Tensor
    bias_BE: Tensor
    family_BEE: Tensor
    """R1."""
    rotation_BEE: Tensor
    """R2."""
    u_BSE: Tensor
    """u(x) of the support as repaired."""
    real_BS: Tensor
    w_BS: Tensor
    """Weights of the pairs."""
    known: Evidence
    explained_B1: Tensor
    """How well R1 explains all of a stream's pairs, and how well R2 does."""
    refit_B1: Tensor


class FoundRotations(NamedTuple):
    """R1 with its coordinates, and R2, as found from pairs with weights `w_BS`."""

    a_BL: Tensor
    family_BEE: Tensor
    rotation_BEE: Tensor
    w_BS: Tensor
    fit_BS: Tensor
    """How well R1 explains each pair."""
    explained_B1: Tensor
    """How well R1 explains all of a stream's pairs."""


class Attention(nn.Module):
    """The attention generator with its parameters, float32 (float64 after `.double()`)."""

    def __init__(self, config: AttentionConfig) -> None:
        """Draws parameters from torch's global generator."""
        super().__init__()
        self.config = config
        self._side = aligned(config.target_dim)
        self.tokens = SetEncoder(self._side, config.width, config.heads, config.blocks)
        context = config.heads * config.width + self._side**2 + EVIDENCE
        self.context = nn.Linear(context, CONTEXT_DIM)
        self.coordinates = nn.Linear(CONTEXT_DIM, config.generators)
        self.family = Manifold(config.generators, config.target_dim, self._side, config.refinements)
        self.weight, self.weight_anew = SmallMlp((EVEN,)), SmallMlp((EVEN,))
        some_pairs = 2.0 - math.log(self._side)
        self.prior, self.prior_anew = SmallMlp((some_pairs,)), SmallMlp((some_pairs,))
        self.doubts = nn.Linear(aligned(config.source_dim) + 2 * self._side + EVIDENCE, REPAIR_DIM)
        self.repair = nn.Linear(REPAIR_DIM, self._side)
        nn.init.zeros_(self.repair.weight)
        nn.init.zeros_(self.repair.bias)
        self.ridge = SmallMlp((3.0, -3.0))
        self.log_unknown = nn.Parameter(torch.tensor(2.0))  # shrinks where there is no pair

    @classmethod
    def fresh(cls, config: AttentionConfig, seed: int) -> "Attention":
        """Returns a generator with random parameters, by the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)

    def start(
        self, theta: Mlp, x_BSD: Tensor, y_BSE: Tensor, real_BS: Tensor, activation: Activation
    ) -> Mlp:
        """Returns each stream's mapping, stacked along B, from its support; θ is shared by all.

        Padded pairs change nothing, whatever they hold. A stream without pairs gets the mapping
        that is best when nothing is known: θ unadapted. One that is not finite is alone in that.
        """
        streams, _, target_dim = y_BSE.shape
        x_BSD = x_BSD.masked_fill(~real_BS.unsqueeze(2), 0.0)
        shared = expand(theta, streams)
        read = self.read_out(x_BSD, apply_batched(shared, x_BSD, activation), y_BSE, real_BS)
        missing = self._side - target_dim
        w2_BEH = functional.pad(shared.w2, (0, 0, 0, missing))
        b2_BE = functional.pad(shared.b2, (0, missing))
        w2_BEH = torch.bmm(read.matrix_BEE, w2_BEH)
        b2_BE = times_vector(read.matrix_BEE, b2_BE) + read.bias_BE
        return Mlp(
            shared.w1,
            shared.b1,
            w2_BEH[:, :target_dim].contiguous(),
            b2_BE[:, :target_dim].contiguous(),
        )

    def read_out(self, x_BSD: Tensor, u_BSE: Tensor, y_BSE: Tensor, real_BS: Tensor) -> Readout:
        """Returns R and b (E padded) from the support and its u(x). `x_BSD` is 0 where padded."""
        seen = self._pairs(u_BSE, y_BSE, real_BS)
        pairs, known = seen, evidence_of(seen)
        w_BS = self._weights(self.weight, known, real_BS)
        found = self._find(self.prior, pairs, known, w_BS, self._coordinates(pairs, known, w_BS))
        for _ in range(self.config.repairs):
            pairs = self._repaired(x_BSD, seen, pairs, known, found)
            known = evidence_of(pairs)
            fits = (found.fit_BS, fit_of(pairs, found.rotation_BEE))
            w_BS = self._weights(self.weight_anew, known, real_BS, *fits)
            found = self._find(self.prior_anew, pairs, known, w_BS, found.a_BL)
        refit_B1 = explained_of(found.w_BS, fit_of(pairs, found.rotation_BEE), known)
        matrix_BEE, bias_BE = self._ridge_step(pairs, known, found, refit_B1)
        unit = math.sqrt(self.config.target_dim)
        rotations = (found.family_BEE, found.rotation_BEE)
        return Readout(
            matrix_BEE,
            bias_BE * unit,
            *rotations,
            pairs.u_BSE * unit,
            real_BS,
            found.w_BS,
            known,
            found.explained_B1,
            refit_B1,
        )

    def spec(self) -> PartSpec:
        """Returns the generator as a part of θ, which `from_spec` reads."""
        tensors = {n: t.detach().cpu().numpy().copy() for n, t in self.state_dict().items()}
        return PartSpec({"kind": KIND} | asdict(self.config), tensors)

    @classmethod
    def from_spec(
        cls, spec: PartSpec, source_dim: int, hidden_dim: int, target_dim: int
    ) -> "Attention":
        """Returns the generator that `spec` wrote. Raises BadMetaInit unless it fits θ's dims.

        θ's hidden dim is free: the generator sees only x and u(x).
        """
        config = read_config(spec.config, KIND, source_dim, target_dim)
        with torch.device("meta"):  # shapes are judged before memory is taken
            attention = cls(config)
        load_exactly(attention, spec.tensors, KIND)
        return attention

    def _pairs(self, u_BSE: Tensor, y_BSE: Tensor, real_BS: Tensor) -> Pairs:
        scale = 1.0 / math.sqrt(self.config.target_dim)
        shape = (0, self._side - self.config.target_dim)
        padded_BS1 = ~real_BS.unsqueeze(2)
        u_BSE, y_BSE = (
            functional.pad(t.masked_fill(padded_BS1, 0.0) * scale, shape) for t in (u_BSE, y_BSE)
        )
        return Pairs(u_BSE, y_BSE, real_BS)

    def _weights(
        self, decision: SmallMlp, known: Evidence, real_BS: Tensor, *fits: Tensor
    ) -> Tensor:
        evidence = (known.u_BS, known.y_BS, known.kept_BS, known.count_BS, *fits)
        (w_BS,) = decision(functional.softplus, *evidence)
        weight_BS: Tensor = w_BS.masked_fill(~real_BS, 0.0)
        return weight_BS

    def _coordinates(self, pairs: Pairs, known: Evidence, w_BS: Tensor) -> Tensor:
        """Where on the learned family to begin, (B, L)."""
        unit = math.sqrt(self.config.target_dim)
        pooled_BU = self.tokens(pairs.u_BSE * unit, pairs.y_BSE * unit, pairs.real_BS)
        yu_BEE = weighted(w_BS, pairs.y_BSE, pairs.u_BSE)
        procrustes_BEE = towards_orthogonal(yu_BEE, CONTEXT_POLAR_STEPS)
        count = functional.pad(known.count_B1, (0, EVIDENCE - 1))
        context_B1U = torch.cat([pooled_BU, procrustes_BEE.flatten(1), count], dim=1).unsqueeze(1)
        hidden_B1U = functional.gelu(linear(self.context, context_B1U))
        a_BL = linear(self.coordinates, hidden_B1U).squeeze(1)
        # smoothly bounded, so that the context learns its way back from too large ones
        return a_BL / (1.0 + a_BL.square().sum(1, keepdim=True) / MAX_COORDINATES**2).sqrt()

    def _find(
        self, prior: SmallMlp, pairs: Pairs, known: Evidence, w_BS: Tensor, a_BL: Tensor
    ) -> FoundRotations:
        yu_BEE = weighted(w_BS, pairs.y_BSE, pairs.u_BSE)
        uu_BEE = weighted(w_BS, pairs.u_BSE, pairs.u_BSE)
        family_BEE, a_BL = self.family(a_BL, uu_BEE, yu_BEE)
        fit_BS = fit_of(pairs, family_BEE)
        explained = explained_of(w_BS, fit_BS, known)
        count, kept, spread = known.count_B1, known.kept_B1, known.spread_B1
        (k_B1,) = prior(_bounded_exp, explained, count, kept, spread, explained * count)
        rotation_BEE = towards_orthogonal(yu_BEE + k_B1.unsqueeze(2) * family_BEE)
        return FoundRotations(a_BL, family_BEE, rotation_BEE, w_BS, fit_BS, explained)

    def _repaired(
        self, x_BSD: Tensor, seen: Pairs, pairs: Pairs, known: Evidence, found: FoundRotations
    ) -> Pairs:
        """The pairs as `seen`, u corrected by what R2 says of the `pairs` of the round before."""
        back_BSE = torch.bmm(pairs.y_BSE, found.rotation_BEE)
        fit_BS = fit_of(pairs, found.rotation_BEE)
        overall_B1 = explained_of(found.w_BS, fit_BS, known)
        streams = (overall_B1, found.explained_B1, known.count_B1, known.kept_B1, known.spread_B1)
        evidence = (fit_BS, found.fit_BS, known.u_BS, *(e.expand_as(fit_BS) for e in streams))
        evidence_BSI = functional.pad(torch.stack(evidence, 2), (0, EVIDENCE - len(evidence)))
        unit = math.sqrt(self.config.target_dim)
        x_BSI = functional.pad(x_BSD, (0, aligned(self.config.source_dim) - x_BSD.shape[2]))
        input_BSI = torch.cat([x_BSI, seen.u_BSE * unit, back_BSE * unit, evidence_BSI], dim=2)
        correction_BSE = linear(self.repair, functional.gelu(linear(self.doubts, input_BSI)))
        u_BSE = seen.u_BSE + correction_BSE / unit
        return seen._replace(u_BSE=u_BSE.masked_fill(~seen.real_BS.unsqueeze(2), 0.0))

    def _ridge_step(
        self, pairs: Pairs, known: Evidence, found: FoundRotations, refit: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, kept, spread = known.count_B1, known.kept_B1, known.spread_B1
        products = (refit * count, spread * count)
        evidence = (refit, found.explained_B1, count, kept, spread, *products)
        l_B1, loose_B1 = self.ridge(_bounded_exp, *evidence)
        loose_B1 = loose_B1 + known.empty_B1 * self.log_unknown.exp()
        towards_BEE = found.rotation_BEE / (1.0 + loose_B1.unsqueeze(2))
        return ridge_towards(pairs, found.w_BS, l_B1, towards_BEE)


def _bounded_exp(logarithms: Tensor) -> Tensor:
    return logarithms.clamp(-MAX_LOG, MAX_LOG).exp()


def load_exactly(module: nn.Module, tensors: Mapping[str, FloatArray], kind: str) -> None:
    """Loads tensors into a module of this kind. Raises BadMetaInit unless they are its own."""
    expected = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    found = {n: t.shape for n, t in tensors.items()}
    if found != expected:
        wrong = sorted(n for n in found | expected if found.get(n) != expected.get(n))
        raise BadMetaInit(f"{kind}: tensors missing, unknown or of wrong shape: {wrong}")
    for name, array in tensors.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise BadMetaInit(f"{kind}: {name} is not finite float32")
    module.load_state_dict({n: torch.tensor(array) for n, array in tensors.items()}, assign=True)


def read_config(
    settings: Mapping[str, Any], kind: str, source_dim: int, target_dim: int
) -> AttentionConfig:
    """Returns the attention's sizes of a generator of this kind. Raises BadMetaInit unless they fit
    θ's dims."""
    settings = dict(settings)
    if (found_kind := settings.pop("kind", None)) != kind:
        raise BadMetaInit(f"generator kind is {found_kind!r}, not {kind!r}")
    names = {field.name for field in fields(AttentionConfig)}
    if set(settings) != names:
        raise BadMetaInit(f"attention: config has {sorted(settings)}, not {sorted(names)}")
    config = AttentionConfig(**settings)
    found, asked = (config.source_dim, config.target_dim), (source_dim, target_dim)
    if found != asked:
        raise BadMetaInit(f"attention is for dims {found}, θ has {asked}")
    return config
