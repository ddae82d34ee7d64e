"""What the tests of learners share: a θ, ragged supports, every learner with rates of its own.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from model.inner.learner import Learner, State, Support, adapt
from model.inner.learners import CLOSED_FORMS, build
from model.losses import MSE, Loss, value
from model.mappings.mlp import AnyActivation, Mlp, apply_batched, expand

LOSSES = [Loss("mse"), Loss("cosine"), Loss("infonce", symmetric=True), Loss("hinge", margin=0.9)]
OUTPUTS: tuple[AnyActivation, ...] = ("none", "relu", "gelu", "tanh", "sigmoid")
D, H, E, K, S = 6, 16, 5, 3, 8
RANK = 9
"""Rows of alpaca's covariance factor."""
LENGTHS = [8, 1, 5, 0, 3]
POISONS = [float("nan"), float("inf"), -float("inf"), 1e30]
FORMS = ("maml", "anil", "adam", "r2d2", "alpaca")
"""Kinds whose results differ: fomaml, reptile and meta-sgd adapt as maml does."""
CASES = [c for c in product(FORMS, LOSSES, OUTPUTS) if c[0] not in CLOSED_FORMS or c[2] == "none"]


def case_id(value: object) -> str:
    return value.kind if isinstance(value, Loss) else str(value)


def theta_of(dtype: torch.dtype, seed: int = 0) -> Mlp:
    g = torch.Generator().manual_seed(seed)
    shapes = ((H, D), (H,), (E, H), (E,))
    tensors = (0.4 * torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)
    return Mlp(*(tensor.to(dtype) for tensor in tensors))


def support_of(dtype: torch.dtype, lengths: list[int] = LENGTHS, seed: int = 2) -> Support:
    g = torch.Generator().manual_seed(seed)
    x_BSD = torch.randn(len(lengths), S, D, generator=g, dtype=torch.float64)
    y_BSE = torch.randn(len(lengths), S, E, generator=g, dtype=torch.float64)
    real_BS = torch.arange(S) < torch.tensor(lengths)[:, None]
    return Support(x_BSD.to(dtype), y_BSE.to(dtype), real_BS)


def tensors_of(kind: str, dtype: torch.dtype, steps: int = K) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    if kind in CLOSED_FORMS:
        tensors = {"log_penalties": torch.tensor([0.3, -0.7], dtype=dtype)}
        if kind == "alpaca":
            tensors["factor"] = 0.3 * torch.randn(RANK, H, generator=g, dtype=torch.float64).to(
                dtype
            )
        return tensors
    scale = 0.02 if kind == "adam" else 0.3
    columns = 2 if kind == "anil" else 4
    rates = scale * (0.3 + torch.rand(steps, columns, generator=g, dtype=torch.float64))
    return {"rates": rates.to(dtype)}


def learner_of(
    kind: str,
    loss: Loss = MSE,
    output: AnyActivation = "none",
    dtype: torch.dtype = torch.float64,
    extra_steps: int = 0,
    **settings: Any,
) -> Learner:
    config = {"kind": kind, "loss": loss.config()} | settings
    return build(config, tensors_of(kind, dtype), "gelu", output, extra_steps)


def run(learner: Learner, support: Support, theta: Mlp | None = None) -> State:
    theta = theta_of(support.x_BSD.dtype) if theta is None else theta
    return adapt(learner, expand(theta, len(support.x_BSD)), support)


def picked(support: Support, streams: list[int]) -> Support:
    return Support(*(tensor[streams] for tensor in support))


def support_loss(mlp: Mlp, support: Support, loss: Loss, output: AnyActivation) -> Tensor:
    o_BSE = apply_batched(mlp, support.x_BSD, "gelu", output)
    return value(loss, o_BSE, support.y_BSE, support.real_BS)
