"""The losses of the inner and the outer loop, for each stream of a batch, and their gradients.

B = streams in batch, N = pairs of a stream (support or query, padded), E = target dim

A loss compares a mapping's outputs o with the targets y over a stream's n real pairs. mse and
cosine look at one pair at a time; infonce and hinge are retrieval losses, in which each output
searches for its own target among the stream's targets. With i and j real pairs of one stream:

    mse      1/(n·E) · Σ_i |o_i − y_i|²
    cosine   1/n · Σ_i (1 − c_ii)
    infonce  1/n · Σ_i −log softmax_j(c_ij / temperature)_i      (van den Oord et al. 2018)
    hinge    1/n · Σ_i max(0, margin − c_ii + max_j≠i c_ij)      (Faghri et al. 2018, eq. 6, MH)

Here c_ij = u_i·v_j is a cosine, with u = o/√(|o|² + ε) and v = y/√(|y|² + ε): thanks to ε, every
derivative exists at zero vectors too. Pair i's negatives are the stream's real targets but for
those equal to i's own (a repeated label: their cosine is above 1 − 1e-5). A stream without
negatives has infonce and hinge 0, and gradient 0. `symmetric` averages the loss as above with the
one in which targets search among outputs.

The gradient of all but mse is ∂L/∂o = (g − u·(u·g)) / √(|o|² + ε), with g_i = Σ_j ∂L/∂c_ij · v_j.
It is written out by hand because inner steps need it without a graph; being made of ordinary
operations, it can itself be differentiated for the outer loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from model.values.errors import BadMetaInit

LossKind = Literal["mse", "cosine", "infonce", "hinge"]

EPSILON = 1e-8
"""ε: negligible beside the squared norm of feature vectors, and never a division by zero."""
SAME_TARGET = 1.0 - 1e-5
"""Two targets are the same when their cosine is above this."""
NEVER = -1e9
"""The logit of what is no candidate: its exponential is 0 beside any cosine over a temperature."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "mse": (),
    "cosine": (),
    "infonce": ("temperature", "symmetric"),
    "hinge": ("margin", "symmetric"),
}
"""The settings that each kind of loss uses."""


def _check_number(name: str, number: object, low: float, high: float) -> None:
    usable = isinstance(number, int | float) and not isinstance(number, bool)
    if not usable or not low <= number <= high:  # type: ignore[operator]  # NaN is in no range
        raise BadMetaInit(f"loss {name} is {number!r}, not a number from {low:g} to {high:g}")


@dataclass(frozen=True, slots=True)
class Loss:
    """Which loss, with its settings."""

    kind: LossKind
    temperature: float = 0.1
    """What infonce divides cosines by: 0.001 to 100."""
    margin: float = 0.2
    """By how much hinge wants a pair's cosine above its hardest negative's: above 0, at most 2."""
    symmetric: bool = False
    """Whether infonce and hinge average both directions of search."""

    def __post_init__(self) -> None:
        """Raises BadMetaInit for an unknown kind and for settings out of range."""
        if self.kind not in get_args(LossKind):
            allowed = ", ".join(get_args(LossKind))
            raise BadMetaInit(f"loss kind is {self.kind!r}, not one of {allowed}")
        _check_number("temperature", self.temperature, 1e-3, 100.0)
        _check_number("margin", self.margin, 1e-6, 2.0)
        if not isinstance(self.symmetric, bool):
            raise BadMetaInit(f"loss symmetric is {self.symmetric!r}, not true or false")

    @classmethod
    def from_config(cls, config: object) -> "Loss":
        """Returns the loss that `config` wrote. Raises BadMetaInit when `config` is not such."""
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
        """Returns the kind and the settings that it uses, as JSON has them."""
        return {"kind": self.kind} | {name: getattr(self, name) for name in SETTINGS[self.kind]}


MSE = Loss("mse")


def judged_by(loss: Loss) -> Loss:
    """Returns the loss that the gate compares on the query pairs: mse for mse, cosine for the rest.

    The query is a few pairs. Among four candidates infonce and hinge are mostly 0 or noise, and for
    one pair they are always 0; the cosine, which both improve, tells something for one pair.
    """
    return MSE if loss.kind == "mse" else Loss("cosine")


def value(loss: Loss, o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """Returns the loss of every stream (B); 0 for a stream without real pairs.

    `real_BN` is True on real pairs; whatever stands in padded ones, NaN included, changes nothing.
    """
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
    """Returns ∂L/∂o (B, N, E), L each stream's own loss; 0 on padded pairs, whatever they hold."""
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
    """Returns 1 / (n·E) of every stream (B), in the dtype of `like`.

    A stream without pairs has 1 / E, so that its loss is 0 and not NaN.
    """
    n_B = real_BN.sum(1).clamp(min=1)
    return 1.0 / (n_B.to(like.dtype) * target_dim)


def masked_mean_squared_error(o_BNE: Tensor, y_BNE: Tensor, real_BN: Tensor) -> Tensor:
    """Returns the mse of every stream (B)."""
    residual_BNE = masked_residual(o_BNE, y_BNE, real_BN)
    weight_B = pair_weight(real_BN, y_BNE.shape[2], like=o_BNE)
    return residual_BNE.square().sum(dim=(1, 2)) * weight_B


def _ranking_loss(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """Returns each pair's loss (B, N), averaged over both directions when symmetric."""
    directions = [c_BNN, c_BNN.transpose(1, 2)][: 1 + loss.symmetric]
    per_direction = [_search_loss(loss, c, candidates_BNN) for c in directions]
    return torch.stack(per_direction).mean(0)


def ranking_gradient(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """Returns ∂(n·L)/∂c (B, N, N), given cosines c and who is a candidate of whom."""
    forward_BNN = _search_gradient(loss, c_BNN, candidates_BNN)
    if not loss.symmetric:
        return forward_BNN
    backward_BNN = _search_gradient(loss, c_BNN.transpose(1, 2), candidates_BNN)
    return 0.5 * (forward_BNN + backward_BNN.transpose(1, 2))


def _search_loss(loss: Loss, c_BNN: Tensor, candidates_BNN: Tensor) -> Tensor:
    """Returns each row's loss (B, N): a row searches its columns for the one on the diagonal."""
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
    """Returns each row's negative of the largest cosine, and whether it is within the margin.

    The first is one-hot (B, N, N), the second 1 or 0 (B, N, 1). Neither carries a gradient, as the
    argument of a maximum never does.
    """
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
    """Returns True (B, N, N) where j is i itself or one of its negatives; symmetric."""
    v_BNE = v_BNE.detach()
    own_NN = torch.eye(v_BNE.shape[1], dtype=torch.bool, device=v_BNE.device)
    other_BNN = torch.bmm(v_BNE, v_BNE.transpose(1, 2)) <= SAME_TARGET
    return (other_BNN | own_NN) & real_BN.unsqueeze(1) & real_BN.unsqueeze(2)


def _unit(vectors_BNE: Tensor) -> tuple[Tensor, Tensor]:
    """Returns vectors over their norms (B, N, E), and 1 over the norms (B, N, 1)."""
    inverse_norm_BN1 = (vectors_BNE.square().sum(2, keepdim=True) + EPSILON).rsqrt()
    return vectors_BNE * inverse_norm_BN1, inverse_norm_BN1


def _masked(values: Tensor, real_BN: Tensor) -> Tensor:
    """Returns values (B, N, ...) with 0 on padded pairs, whatever stands there."""
    return values.masked_fill(~real_BN.view(*real_BN.shape, *[1] * (values.dim() - 2)), 0.0)
