"""Learners by the names that a θ gives them: from config and tensors to a Learner, and fresh ones.

D = source dim, H = hidden units, E = target dim, K = inner steps, U = numbers of an embedding
(rows of the covariance factor)

| kind     | tensors           | what runs                                                    |
|----------|-------------------|--------------------------------------------------------------|
| maml     | rates (K, 4)      | gradient steps; exact second order in meta-training          |
| fomaml   | rates (K, 4)      | the same, inner gradients constants (Finn et al. 2017, §5.2) |
| reptile  | rates (K, 4)      | as fomaml; θ moves towards θ′ (Nichol et al. 2018)           |
| meta-sgd | rates (K, 4)      | as maml; the outer loop learns the rates (Li et al. 2017)    |
| anil     | rates (K, 2)      | gradient steps of the head alone                             |
| adam     | rates (K, 4)      | Adam steps; config betas, eps                                |
| r2d2     | log_penalties (2) | the head in closed form                                      |
| alpaca   | the same, and     | the same with a learned prior covariance (`ridge_head`;      |
|          | factor (U, H)     | Harrison et al. 2018)                                        |

Columns of rates are w1, b1, w2, b2 (anil: w2, b2). A config is {"kind": …, "loss": {…}}; without a
loss it is mse. meta-sgd, anil and adam take "first_order" too: true makes their inner gradients
constants in meta-training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.inner.adam import AdamSteps
from model.inner.batched import Objective
from model.inner.extra_steps import ExtraSteps
from model.inner.learner import Learner
from model.inner.ridge_head import RidgeHead
from model.inner.sgd import GradientSteps, HeadSteps
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation
from model.theta.meta_init import MAX_STEPS
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.errors import BadMetaInit

SETTINGS: dict[str, tuple[str, ...]] = {
    "maml": (),
    "fomaml": (),
    "reptile": (),
    "meta-sgd": ("first_order",),
    "anil": ("first_order",),
    "adam": ("first_order", "betas", "eps"),
    "r2d2": (),
    "alpaca": (),
}
"""Config keys that each kind knows, besides kind and loss."""
KINDS = tuple(SETTINGS)
CLOSED_FORMS = ("r2d2", "alpaca")
"""Kinds that solve for the head in one step."""
FACTOR = "factor"
"""alpaca's tensor that is no logarithm."""
MAX_RANK = 256
"""The most rows of a fresh covariance factor."""
MAX_LOG_PENALTY = 30.0
"""Largest magnitude of a logarithm of a penalty: beyond, it is 0 or infinite beside float32
features."""


def build(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    activation: AnyActivation,
    output_activation: AnyActivation,
    extra_steps: int = 0,
    hidden_dim: int | None = None,
) -> Learner:
    """Returns the learner that a θ names, on its tensors' device; they may require gradients.

    `hidden_dim`, where given, is θ's own, which alpaca's factor has to fit.

    `extra_steps` (serving only) go on beyond the K trained for, at the last rates, each rolled
    back in the streams where the support loss did not fall; K and they together are capped at 64,
    and r2d2 and alpaca, in closed form, take none. Raises BadMetaInit naming the kind, setting,
    shape or value that cannot be, ValueError for negative `extra_steps`.
    """
    if extra_steps < 0:
        raise ValueError(f"extra_steps is {extra_steps}, not 0 or more")
    objective = Objective(loss_of(config), activation, output_activation)
    _check_settings(config)
    if config["kind"] in CLOSED_FORMS:
        return _ridge_head(config["kind"], tensors, objective, hidden_dim)
    learner = _stepping(config, tensors, objective)
    steps = len(tensors["rates"])
    extra = min(extra_steps, MAX_STEPS - steps)
    return ExtraSteps(learner, steps, extra, objective) if extra else learner


def loss_of(config: Mapping[str, Any]) -> Loss:
    """Returns a learner's loss, the mse unless its config names another. Raises BadMetaInit."""
    return Loss.from_config(config["loss"]) if "loss" in config else MSE


def fresh_learner(
    kind: str,
    source_dim: int,
    hidden_dim: int,
    target_dim: int,
    steps: int = 5,
    loss: Loss = MSE,
    rate: float | None = None,
) -> PartSpec:
    """Returns a learner that is not yet meta-trained. Raises BadMetaInit for an unknown kind.

    `rate` is that of every step and tensor (r2d2, alpaca: both penalties, not their logarithms).
    Without it rates suit inputs and targets of about unit variance per dimension (see
    `_fresh_rates`).
    """
    if kind not in SETTINGS:
        raise BadMetaInit(f"learner kind is {kind!r}, not one of {', '.join(KINDS)}")
    config = {"kind": kind, "loss": loss.config()}
    if kind in CLOSED_FORMS:
        # a start as good as the features: h·h grows with H, and a bias counts as one unit
        penalties = np.full(2, 0.1 * hidden_dim if rate is None else rate)
        tensors = {"log_penalties": np.log(penalties).astype(np.float32)}
        if kind == "alpaca":
            tensors[FACTOR] = _fresh_factor(hidden_dim)
        return PartSpec(config, tensors)
    rates_4 = _fresh_rates(kind, source_dim, hidden_dim, target_dim, loss)
    if rate is not None:
        rates_4 = [rate] * 4
    columns = rates_4[2:] if kind == "anil" else rates_4
    return PartSpec(config, {"rates": np.tile(np.asarray(columns, np.float32), (steps, 1))})


def _fresh_factor(hidden_dim: int) -> FloatArray:
    """The identity, with which alpaca is r2d2, or of wide mappings a random P with PᵀP about it."""
    if hidden_dim <= MAX_RANK:
        return np.identity(hidden_dim, np.float32)
    drawn_UH = np.random.default_rng(0).standard_normal((MAX_RANK, hidden_dim))
    factor_UH: FloatArray = (drawn_UH / np.sqrt(MAX_RANK)).astype(np.float32)
    return factor_UH


def _fresh_rates(
    kind: str, source_dim: int, hidden_dim: int, target_dim: int, loss: Loss
) -> list[float]:
    """Rates of w1, b1, w2 and b2.

    The mse's gradient carries 1/E, so rates carry E; that of w1 grows with the D inputs, that of
    w2 with the H hidden units: divided by them. The cosine's, 1/|o| long, is of the same size;
    infonce's is 1/temperature times that, hinge's about twice. Adam's step does not depend on the
    gradient's size.
    """
    if kind == "adam":
        base = 0.25
    else:
        size = {"mse": 1.0, "cosine": 1.0, "infonce": 1.0 / loss.temperature, "hinge": 2.0}
        base = 0.25 * target_dim / size[loss.kind]
    return [base / source_dim, base / source_dim, base / hidden_dim, base / hidden_dim]


def _stepping(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], objective: Objective
) -> Learner:
    kind = config["kind"]
    rates = _rates(kind, tensors)
    if kind in ("maml", "fomaml", "reptile"):
        return GradientSteps(rates, objective, first_order=kind != "maml")
    first_order = config.get("first_order", False)
    if not isinstance(first_order, bool):
        raise BadMetaInit(f"learner first_order is {first_order!r}, not true or false")
    if kind == "meta-sgd":
        return GradientSteps(rates, objective, first_order)
    if kind == "anil":
        return HeadSteps(rates, objective, first_order)
    betas, eps = config.get("betas", (0.9, 0.999)), config.get("eps", 1e-6)
    if not isinstance(betas, list | tuple) or len(betas) != 2:
        raise BadMetaInit(f"learner betas is {betas!r}, not two numbers")
    if not all(_is_number(beta) and 0.0 <= beta < 1.0 for beta in betas):
        raise BadMetaInit(f"learner betas is {betas!r}, not two numbers from 0 to below 1")
    if not _is_number(eps) or not 1e-12 <= eps <= 1.0:
        raise BadMetaInit(f"learner eps is {eps!r}, not a number from 1e-12 to 1")
    return AdamSteps(rates, objective, (betas[0], betas[1]), eps, first_order)


def _ridge_head(
    kind: str, tensors: Mapping[str, Tensor], objective: Objective, hidden_dim: int | None
) -> RidgeHead:
    if objective.output_activation != "none":
        name = objective.output_activation
        raise BadMetaInit(f"{kind} solves a linear head: output_activation {name!r} must be 'none'")
    names = ("log_penalties",) if kind == "r2d2" else ("log_penalties", FACTOR)
    log_penalties, *factors = _only(tensors, *names)
    if log_penalties.shape != (2,):
        raise BadMetaInit(f"learner.log_penalties has shape {tuple(log_penalties.shape)}, not (2,)")
    if bool((log_penalties.abs() > MAX_LOG_PENALTY).any()):
        raise BadMetaInit(f"learner.log_penalties are beyond {MAX_LOG_PENALTY:g} either way")
    for factor in factors:
        if factor.dim() != 2 or 0 in factor.shape or hidden_dim not in (None, factor.shape[1]):
            found = tuple(factor.shape)
            raise BadMetaInit(f"learner.factor has shape {found}, not (1 or more, {hidden_dim})")
    return RidgeHead(log_penalties, objective, *factors)


def _rates(kind: str, tensors: Mapping[str, Tensor]) -> Tensor:
    (rates,) = _only(tensors, "rates")
    columns = 2 if kind == "anil" else 4
    if rates.dim() != 2 or rates.shape[1] != columns:
        found = tuple(rates.shape)
        raise BadMetaInit(f"learner.rates has shape {found}, {kind} needs (K, {columns})")
    if not 1 <= len(rates) <= MAX_STEPS:
        raise BadMetaInit(f"learner.rates has {len(rates)} steps, not 1..{MAX_STEPS}")
    return rates


def _only(tensors: Mapping[str, Tensor], *names: str) -> tuple[Tensor, ...]:
    if set(tensors) != set(names):
        raise BadMetaInit(f"learner tensors are {sorted(tensors)}, not {', '.join(names)}")
    for name in names:
        if not tensors[name].is_floating_point() or not bool(torch.isfinite(tensors[name]).all()):
            raise BadMetaInit(f"learner.{name} holds NaN or infinity, or no floating-point numbers")
    return tuple(tensors[name] for name in names)


def _check_settings(config: Mapping[str, Any]) -> None:
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise BadMetaInit(f"learner kind is {kind!r}, not one of {', '.join(KINDS)}")
    if unknown := sorted(map(str, set(config) - {"kind", "loss", *SETTINGS[kind]})):
        raise BadMetaInit(f"learner {kind!r} has no setting {', '.join(unknown)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
