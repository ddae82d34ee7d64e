"""The learner alpaca beside what it claims to be: a posterior mean, computed without its algebra.

B = streams in batch, S = support pairs, Q = query pairs, N = pairs of a stream, H = hidden units,
E = target dim, D = source dim
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from model.inner.learner import Support, adapt
from model.inner.learners import build, fresh_learner
from model.mappings.mlp import Mlp, apply_batched, expand
from tests.model.learner_lab import D, E, H, support_of, tensors_of, theta_of

Array = NDArray[np.float64]
DTYPE = torch.float64
N = 7


def case() -> tuple[Mlp, Support, Array, Array]:
    """θ, one stream's support of N pairs, P, and (λw, λb)."""
    whole = support_of(DTYPE, [N])
    support = Support(*(tensor[:, :N] for tensor in whole))
    tensors = tensors_of("alpaca", DTYPE)
    return (
        theta_of(DTYPE),
        support,
        tensors["factor"].numpy(),
        tensors["log_penalties"].exp().numpy(),
    )


def hidden(theta: Mlp, x: torch.Tensor) -> Array:
    features: Array = functional.gelu(x @ theta.w1.T + theta.b1).numpy()
    return features


def outputs(theta: Mlp, support: Support, x_QD: torch.Tensor) -> Array:
    learner = build({"kind": "alpaca"}, tensors_of("alpaca", DTYPE), "gelu", "none")
    adapted = adapt(learner, expand(theta, 1), support).mlp
    found: Array = apply_batched(adapted, x_QD[None], "gelu")[0].numpy()
    return found


def test_it_is_the_posterior_mean_of_a_gaussian_process_around_theta() -> None:
    """Rasmussen and Williams 2006, equation 2.38, by conditioning one joint normal distribution."""
    theta, support, factor, (lambda_w, lambda_b) = case()
    x_QD = torch.randn(5, D, generator=torch.Generator().manual_seed(8), dtype=DTYPE)
    h = np.concatenate([hidden(theta, support.x_BSD[0]), hidden(theta, x_QD)])
    prior = h @ theta.w2.numpy().T + theta.b2.numpy()
    kernel = (h @ factor.T) @ (h @ factor.T).T / lambda_w + 1.0 / lambda_b
    noisy = kernel[:N, :N] + np.identity(N)
    left_over = support.y_BSE[0].numpy() - prior[:N]
    expected = prior[N:] + kernel[N:, :N] @ np.linalg.solve(noisy, left_over)
    np.testing.assert_allclose(outputs(theta, support, x_QD), expected, rtol=1e-11, atol=1e-11)


def test_its_head_is_the_posterior_mean_of_bayesian_linear_regression() -> None:
    """Equation 2.8 of the same, one pair after another: the posterior is the next pair's prior.

    The covariance of W2's rows, PᵀP/λw, has not full rank, so it has no inverse: this takes none.
    """
    theta, support, factor, (lambda_w, lambda_b) = case()
    covariance = np.zeros((H + 1, H + 1))
    covariance[:H, :H] = factor.T @ factor / lambda_w
    covariance[H, H] = 1.0 / lambda_b
    mean = np.concatenate([theta.w2.numpy(), theta.b2.numpy()[:, None]], axis=1)
    for h, y in zip(hidden(theta, support.x_BSD[0]), support.y_BSE[0].numpy(), strict=True):
        h1 = np.append(h, 1.0)
        gain = covariance @ h1 / (h1 @ covariance @ h1 + 1.0)
        mean = mean + np.outer(y - mean @ h1, gain)
        covariance = covariance - np.outer(gain, h1 @ covariance)
    learner = build({"kind": "alpaca"}, tensors_of("alpaca", DTYPE), "gelu", "none")
    adapted = adapt(learner, expand(theta, 1), support).mlp
    np.testing.assert_allclose(adapted.w2[0].numpy(), mean[:, :H], rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(adapted.b2[0].numpy(), mean[:, H], rtol=1e-11, atol=1e-11)


def test_fresh_it_is_r2d2() -> None:
    support = support_of(torch.float32)
    theta = expand(theta_of(torch.float32), len(support.x_BSD))
    found = []
    for kind in ("alpaca", "r2d2"):
        spec = fresh_learner(kind, D, H, E)
        tensors = {name: torch.from_numpy(array) for name, array in spec.tensors.items()}
        found.append(adapt(build(spec.config, tensors, "gelu", "none"), theta, support).mlp)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)
