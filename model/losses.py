"""The losses of inner and outer loop, per stream and masked, with hand-derived gradients.

B = streams in batch, N = pairs (support or query, padded), E = target dim; i, j = real pairs of
one stream, n = how many those are

    mse      1/(n·E) · Σ_i |o_i − y_i|²
    cosine   1/n · Σ_i (1 − c_ii)
    infonce  1/n · Σ_i −log softmax_j(c_ij / temperature)_i      (van den Oord et al. 2018)
    hinge    1/n · Σ_i max(0, margin − c_ii + max_j≠i c_ij)      (Faghri et al. 2018, eq. 6, MH)

with c_ij = u_i·v_j, u = o/√(|o|² + ε), v = y/√(|y|² + ε): cosines whose every derivative exists at
zero vectors. Candidates are the stream's own real targets; one that equals pair i's own target (its
cosine to it above 1 − 1e-5: a repeated label) is no negative of i. A stream without negatives has
infonce and hinge 0 and gradient 0. As they stand, predictions search among targets; `symmetric`
averages with targets searching among predictions.

The gradient of all but mse is do = (g − u·(u·g)) / √(|o|² + ε), g_i = Σ_j ∂L/∂c_ij · v_j. All
operations are ordinary differentiable ones, row by row and stream by stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from model.values.errors import BadMetaInit

LossKind = Literal["mse", "cosine", "infonce", "hinge"]

EPSILON = 1e-8
"""Added to squared norms: nothing beside feature vectors, and no division by zero."""
SAME_TARGET = 1.0 - 1e-5
"""A cosine above which two targets are one."""
NEVER = -1e9
"""A logit whose exponential is 0 beside any cosine over a temperature."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "mse": (),
    "cosine": (),
    "infonce": ("temperature", "symmetric"),
    "hinge": ("margin", "symmetric"),
}


def _check_number(name: str, number: object, low: float, high: float) -> None:
    usable = isinstance(number, int | float) and not isinstance(number, bool)
    if not usable or not low <= number <= high:  # type: ignore[operator]  # NaN is in no range
        raise BadMetaInit(f"loss {name} is {number!r}, not a number from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Loss:
    """Which loss, as a value."""

    kind: LossKind
    temperature: float = 0.1
    """Of infonce, in units of cosines: 0.001 to 100."""
    margin: float = 0.2
    """Of hinge, in units of cosines: above 0, at most 2."""
    symmetric: bool = False
    """infonce and hinge: both directions of search, averaged."""

    def __post_init__(self) -> None:
        """Raise BadMetaInit for values that cannot be."""
        if self.kind not in get_args(LossKind):
            allowed = ", ".join(get_args(LossKind))
            raise BadMetaInit(f"loss kind is {self.kind!r}, not one of {allowed}")
        _check_number("temperature", self.temperature, 1e-3, 100.0)
        _check_number("margin", self.margin, 1e-6, 2.0)
        if not isinstance(self.symmetric, bool):
            raise BadMetaInit(f"loss symmetric is {self.symmetric!r}, not true or false")

    @classmethod
    def from_config(cls, config: object) -> "Loss":
        """Read what `config` wrote. Raises BadMetaInit, naming what is wrong."""
        if not isinstance(config, Mapping):
            raise BadMetaInit(f"loss is {config!r}, not an object with a kind")
        settings = dict(config)
        kind = settings.pop("kind", None)
        if not isinstance(kind, str) or kind not in SETTINGS:
            raise BadMetaInit(f"loss kind is {kind!r}, not one of {', '.join(SETTINGS)}")
        if unknown := sorted(map(str, set(settings) - set(SETTINGS[kind]))):
            raise BadMetaInit(f"loss {kind!r} has no setting {', '.join(unknown)}")
        return cls(kind, **settings)  # type: ignore[arg-type]  # a member of LossKind, see SETTINGS

    def config(self) -> dict[str, Any]:
        """JSON-like: the kind and the settings that it uses."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in SETTINGS[self.kind]}


MSE = Loss("mse")


def judged_by(loss: Loss) -> Loss:
    """What the gate compares on a few newest pairs: mse for mse, cosine for the other three.

    With four query pairs infonce and hinge rank among four candidates: mostly 0 or noise, and an
    empty verdict for one pair. The cosine is what both improve, and means something for one pair.
    """
    return MSE if loss.kind == "mse" else Loss("cosine")


def value(loss: Loss, o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """The loss of every stream (B); 0 without real pairs. `real_BN` is true on real pairs;
    whatever stands in padded ones (NaN included) counts for nothing."""
    if loss.kind == "mse":
        return masked_mean_squared_error(o_BNE, y_BNE, real_BN)
    u_BNE, v_BNE = _unit(_masked(o_BNE, real_BN))[0], _unit(_masked(y_BNE, real_BN))[0]
    if loss.kind == "cosine":
        per_pair_BN = 1.0 - (u_BNE * v_BNE).sum(2)
    else:
        c_BNN = torch.bmm(u_BNE, v_BNE.transpose(1, 2))
        per_pair_BN = _ranking_loss(loss, c_BNN, _candidates(v_BNE, real_BN))
    return _masked(per_pair_BN, real_BN).sum(1) * pair_weight(real_BN, 1, like=o_BNE)


def output_gradient(loss: Loss, o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """∂(loss of its stream)/∂o, (B, N, E): 0 on padded pairs, whatever stands there."""
    if loss.kind == "mse":
        weight_B11 = pair_weight(real_BN, y_BNE.shape[2], like=y_BNE).view(-1, 1, 1)
        return masked_residual(o_BNE, y_BNE, real_BN) * (2.0 * weight_B11)
    u_BNE, inverse_norm_BN1 = _unit(_masked(o_BNE, real_BN))
    v_BNE = _unit(_masked(y_BNE, real_BN))[0]
    if loss.kind == "cosine":
        g_BNE = -v_BNE
    else:
        c_BNN = torch.bmm(u_BNE, v_BNE.transpose(1, 2))
        dc_BNN = ranking_gradient(loss, c_BNN, _candidates(v_BNE, real_BN))
        g_BNE = torch.bmm(_masked(dc_BNN, real_BN), v_BNE)
    radial_BN1 = (u_BNE * g_BNE).sum(2, keepdim=True)
    scale_BN1 = inverse_norm_BN1 * pair_weight(real_BN, 1, like=o_BNE).view(-1, 1, 1)
    return _masked((g_BNE - u_BNE * radial_BN1) * scale_BN1, real_BN)


def masked_residual(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """o − y on real pairs and exactly 0 on padded ones, whatever stands there."""
    return _masked(o_BNE - y_BNE, real_BN)


def pair_weight(real_BN: Tensor, target_dim: int, like: Tensor) -> Tensor:
    """1 / (n · E) per stream (B); a stream without pairs gets 1 / E, so that its loss is 0."""
    n_B = real_BN.sum(1).clamp(min=1)
    return 1.0 / (n_B.to(like.dtype) * target_dim)


def masked_mean_squared_error(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """The mse of every stream (B)."""
    residual_BNE = masked_residual(o_BNE, y_BNE, real_BN)
    weight_B = pair_weight(real_BN, y_BNE.shape[2], like=o_BNE)
    return residual_BNE.square().sum(dim=(1, 2)) * weight_B


def _ranking_loss(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """Per pair (B, N); of both directions when symmetric."""
    directions = [c_BNN, c_BNN.transpose(1, 2)][: 1 + loss.symmetric]
    per_direction = [_search_loss(loss, c, candidates_BNN) for c in directions]
    return torch.stack(per_direction).mean(0)


def ranking_gradient(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """∂(n · loss)/∂c."""
    forward_BNN = _search_gradient(loss, c_BNN, candidates_BNN)
    if not loss.symmetric:
        return forward_BNN
    backward_BNN = _search_gradient(loss, c_BNN.transpose(1, 2), candidates_BNN)
    return 0.5 * (forward_BNN + backward_BNN.transpose(1, 2))


def _search_loss(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """Per row, which searches among its columns for the one on the diagonal."""
    if loss.kind == "infonce":
        logits_BNN = (c_BNN / loss.temperature).masked_fill(~candidates_BNN, NEVER)
        return -torch.log_softmax(logits_BNN, 2).diagonal(dim1=1, dim2=2)
    hardest_BNN, active_BN1 = _hardest(loss, c_BNN, candidates_BNN)
    negative_BN = (c_BNN * hardest_BNN).sum(2)
    violation_BN = loss.margin - c_BNN.diagonal(dim1=1, dim2=2) + negative_BN
    return violation_BN * active_BN1.squeeze(2)


def _search_gradient(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    own_NN = torch.eye(c_BNN.shape[1], dtype=c_BNN.dtype, device=c_BNN.device)
    if loss.kind == "infonce":
        logits_BNN = (c_BNN / loss.temperature).masked_fill(~candidates_BNN, NEVER)
        d_BNN = (torch.softmax(logits_BNN, 2) - own_NN) / loss.temperature
        return d_BNN.masked_fill(~candidates_BNN, 0.0)
    hardest_BNN, active_BN1 = _hardest(loss, c_BNN, candidates_BNN)
    return (hardest_BNN - own_NN) * active_BN1


def _hardest(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's negative of the largest cosine, one-hot, and 1 or 0 (B, N, 1): whether that one
    is within the margin. Constants of the gradient, like the argument of any maximum."""
    own_NN = torch.eye(c_BNN.shape[1], dtype=torch.bool, device=c_BNN.device)
    negatives_BNN = candidates_BNN & ~own_NN
    if not c_BNN.shape[1]:
        return c_BNN.detach(), c_BNN.detach().sum(2, keepdim=True)
    masked_BNN = c_BNN.detach().masked_fill(~negatives_BNN, NEVER)
    largest_BN1, j_BN1 = masked_BNN.max(2, keepdim=True)
    hardest_BNN = torch.zeros_like(masked_BNN).scatter(2, j_BN1, 1.0)
    own_BN1 = c_BNN.detach().diagonal(dim1=1, dim2=2).unsqueeze(2)
    active_BN1 = loss.margin - own_BN1 + largest_BN1 > 0
    return hardest_BNN, active_BN1.to(c_BNN.dtype)


def _candidates(v_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """True where j is i itself or one of its negatives; symmetric."""
    v_BNE = v_BNE.detach()
    own_NN = torch.eye(v_BNE.shape[1], dtype=torch.bool, device=v_BNE.device)
    other_BNN = torch.bmm(v_BNE, v_BNE.transpose(1, 2)) <= SAME_TARGET
    return (other_BNN | own_NN) & real_BN.unsqueeze(1) & real_BN.unsqueeze(2)


def _unit(vectors_BNE: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors over their norms, and 1 over the norms (B, N, 1)."""
    inverse_norm_BN1 = (vectors_BNE.square().sum(2, keepdim=True) + EPSILON).rsqrt()
    return vectors_BNE * inverse_norm_BN1, inverse_norm_BN1


def _masked(values: Tensor, real_BN: Tensor) -> Tensor:
    """0 on padded pairs, whatever stands there."""
    return values.masked_fill(~real_BN.view(*real_BN.shape, *[1] * (values.dim() - 2)), 0.0)
