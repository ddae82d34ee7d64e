"""The attention generator against closed forms, finite differences, and itself alone.

B = streams in batch, S = support pairs, D = source dim, H = hidden units, E = target dim,
O = outputs of a layer, L = learned numbers in one vector (degrees of freedom)
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from model.mappings.attention import Attention, AttentionConfig
from model.mappings.mlp import Mlp, apply, apply_batched
from model.mappings.rotations import (
    Manifold,
    expm,
    expm_with_derivatives,
    solve,
    towards_orthogonal,
)
from model.mappings.set_encoder import SetEncoder
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

D, H = 12, 16
POISONS = [float("nan"), float("inf"), 1e30, 3e38]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def theta(target_dim: int, seed: int = 0) -> Mlp:
    g = seeded(seed)
    shapes = ((H, D), (H,), (target_dim, H), (target_dim,))
    return Mlp(*(torch.randn(shape, generator=g) / shape[-1] ** 0.5 for shape in shapes))


def attention(target_dim: int, seed: int = 0, **settings: int) -> Attention:
    """Not as it begins, where decisions ignore the evidence: every parameter is moved."""
    config = AttentionConfig(D, target_dim, width=32, heads=2, **settings)
    module = Attention.fresh(config, seed)
    g = seeded(seed + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g), alpha=0.05)
    return module.requires_grad_(False)


def supports(
    target_dim: int, lengths: list[int], capacity: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    g = seeded(seed)
    x_BSD = torch.randn(len(lengths), capacity, D, generator=g)
    y_BSE = torch.randn(len(lengths), capacity, target_dim, generator=g)
    return x_BSD, y_BSE, torch.arange(capacity) < torch.tensor(lengths)[:, None]


def rotations(count: int, dim: int, seed: int = 0) -> Tensor:
    normal = torch.randn(count, dim, dim, generator=seeded(seed), dtype=torch.float64)
    q: Tensor = torch.linalg.qr(normal)[0]
    return q


@pytest.mark.parametrize("size", [0.0, 0.3, 4.0, 12.0])
def test_expm_and_its_derivatives_are_scipys(size: float) -> None:
    g = seeded(1)
    a = torch.randn(5, 6, 6, generator=g, dtype=torch.float64)
    a = (a - a.transpose(1, 2)) * size / 6
    directions = torch.randn(4, 6, 6, generator=g, dtype=torch.float64)
    found, derivatives = expm_with_derivatives(a, directions)
    assert torch.equal(found, expm(a))
    for b in range(5):
        for p in range(4):
            expected, along = linalg.expm_frechet(a[b].numpy(), directions[p].numpy())
            np.testing.assert_allclose(found[b].numpy(), expected, atol=2e-5)
            np.testing.assert_allclose(derivatives[b, p].numpy(), along, atol=2e-4)


def test_a_well_conditioned_matrix_is_pulled_to_its_polar_factor() -> None:
    m = torch.eye(8, dtype=torch.float64) + 0.2 * torch.randn(
        3, 8, 8, generator=seeded(2), dtype=torch.float64
    )
    for found, matrix in zip(towards_orthogonal(m), m, strict=True):
        np.testing.assert_allclose(found.numpy(), linalg.polar(matrix.numpy())[0], atol=1e-8)


def test_what_a_matrix_says_nothing_about_stays_out() -> None:
    u, v = rotations(1, 8, 3), rotations(1, 8, 4)
    values = torch.tensor([3.0, 2.0, 1.0, 0, 0, 0, 0, 0]).double()
    found = towards_orthogonal(u * values @ v)
    torch.testing.assert_close(found, u * (values > 0) @ v, atol=1e-8, rtol=0.0)
    assert torch.equal(towards_orthogonal(torch.zeros(1, 8, 8)), torch.zeros(1, 8, 8))


def test_a_singular_or_poisoned_system_leaves_the_others_solved() -> None:
    left = torch.eye(4).repeat(4, 1, 1)
    left[1] = 0.0
    left[2, 1, 1] = float("nan")
    found = solve(left, torch.ones(4, 4, 1))
    assert torch.equal(found[[0, 3]], torch.ones(2, 4, 1))
    assert not found[2].isfinite().all()


def test_gauss_newton_finds_the_rotation_that_made_the_pairs() -> None:
    torch.manual_seed(0)
    manifold = Manifold(4, 6, 6, refinements=8).double().requires_grad_(False)
    manifold.log_damping.fill_(-20.0)
    truth = torch.randn(5, 4, generator=seeded(1)).double()
    u = torch.randn(5, 3, 6, generator=seeded(2)).double()
    unmoved = Manifold(4, 6, 6, refinements=0).double().requires_grad_(False)
    unmoved.load_state_dict(manifold.state_dict())
    expected, _ = unmoved(truth, u, u)
    y = u @ expected.transpose(1, 2)
    start = truth + 0.15 * torch.randn(5, 4, generator=seeded(3)).double()
    found, coordinates = manifold(start, u.transpose(1, 2) @ u, y.transpose(1, 2) @ u)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(coordinates, truth, atol=1e-5, rtol=0.0)


def test_idle_dims_are_not_rotated() -> None:
    manifold = Manifold(4, 5, 8, refinements=0)
    found, _ = manifold(torch.ones(2, 4), torch.zeros(2, 8, 8), torch.zeros(2, 8, 8))
    torch.testing.assert_close(found[:, 5:], torch.eye(8)[5:].expand(2, 3, 8))


def test_the_context_does_not_depend_on_the_pairs_order() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(16, width=32, heads=2, blocks=2).double()
    u, y = torch.randn(2, 3, 9, 16, generator=seeded(1)).double()
    real = torch.arange(9).expand(3, 9) < torch.tensor([[9], [4], [1]])
    order = torch.randperm(9, generator=seeded(2))
    found = encoder(u[:, order], y[:, order], real[:, order])
    torch.testing.assert_close(found, encoder(u, y, real), atol=1e-10, rtol=0.0)


def opinionless(target_dim: int) -> Attention:
    """All pairs weigh 1; the prior and the ridge say what the test makes them say."""
    module = Attention.fresh(AttentionConfig(D, target_dim, width=32, heads=2), 0).double()
    return module.requires_grad_(False)


def test_without_a_prior_and_ridge_the_rotation_is_orthogonal_procrustes() -> None:
    module = opinionless(16)
    module.prior.first_O.fill_(-40.0)
    module.prior_anew.first_O.fill_(-40.0)
    module.ridge.first_O.copy_(torch.tensor([12.0, -12.0]))
    u = torch.randn(3, 64, 16, generator=seeded(1)).double()
    y = torch.randn(3, 64, 16, generator=seeded(2)).double()
    y = y + u @ rotations(3, 16)  # else some singular value is too small for the fixed steps
    read = module.read_out(
        torch.zeros(3, 64, D).double(), u, y, torch.ones(3, 64, dtype=torch.bool)
    )
    for b in range(3):
        expected = linalg.orthogonal_procrustes(u[b].numpy(), y[b].numpy())[0].T
        np.testing.assert_allclose(read.rotation_BEE[b].numpy(), expected, atol=2e-3)
        np.testing.assert_allclose(read.matrix_BEE[b].numpy(), expected, atol=2e-3)
    assert read.bias_BE.abs().max() < 1e-2


def test_repair_begins_by_changing_nothing_and_never_touches_padding() -> None:
    x, y, real = supports(16, [16, 3])
    u = torch.randn(2, 16, 16, generator=seeded(1)).masked_fill(~real.unsqueeze(2), 0.0)
    untrained = Attention.fresh(AttentionConfig(D, 16), 0).requires_grad_(False)
    torch.testing.assert_close(untrained.read_out(x, u, y, real).u_BSE, u)
    moved = attention(16).read_out(x, u, y, real).u_BSE
    assert (moved - u)[real].abs().max() > 0.01
    assert (moved[~real] == 0).all()


def test_supports_unlike_any_in_training_give_finite_mappings() -> None:
    module = attention(16)
    with torch.no_grad():
        module.coordinates.weight *= 1e4
    x, y, real = supports(16, [16, 3, 1, 16])
    for scale_x, scale_y in ((1.0, 1e3), (1e3, 1.0), (0.0, 0.0), (1e-6, 1e-6)):
        start = module.start(theta(16), x * scale_x, y * scale_y, real, "gelu")
        assert all(bool(t.isfinite().all()) for t in start)


def test_where_nothing_is_known_the_mapping_says_little() -> None:
    shared = theta(16)
    x, y, real = supports(16, [0, 16])
    untrained = Attention.fresh(AttentionConfig(D, 16), 0).requires_grad_(False)
    start = untrained.start(shared, x, y, real, "gelu")
    spoken = apply_batched(start, x, "gelu").square().mean((1, 2))
    plain = apply(shared, x, "gelu").square().mean((1, 2))
    assert 0 < spoken[0] < 0.05 * plain[0]
    assert spoken[1] > 0.2 * plain[1]


def test_the_ridge_step_minimises_the_penalised_squares() -> None:
    module = opinionless(16)
    module.ridge.first_O.copy_(torch.tensor([-1.0, -0.5]))
    u, y = torch.randn(2, 1, 24, 16, generator=seeded(1)).double()
    read = module.read_out(
        torch.zeros(1, 24, D).double(), u, y, torch.ones(1, 24, dtype=torch.bool)
    )
    strength = np.exp(-1.0) + 1e-6 * float(u.square().sum()) / 16.0
    towards = float(torch.sigmoid(torch.tensor(0.5))) * read.rotation_BEE[0]
    # as one least squares problem: every penalty is a row with its own target, in units of √E
    root = np.sqrt(strength)
    a = np.vstack([np.c_[u[0] / 4.0, np.ones(24)], root * np.eye(17)])
    right = np.vstack([y[0] / 4.0, root * towards.T.numpy(), np.zeros((1, 16))])
    expected = np.linalg.lstsq(a, right, rcond=None)[0]
    np.testing.assert_allclose(read.matrix_BEE[0].numpy(), expected[:16].T, atol=1e-6)
    np.testing.assert_allclose(read.bias_BE[0].numpy(), 4.0 * expected[16], atol=1e-6)


@pytest.mark.parametrize("target_dim", [5, 16, 32])
def test_what_comes_out_is_the_shared_mapping_times_a_matrix(target_dim: int) -> None:
    module, shared = attention(target_dim), theta(target_dim)
    x, y, real = supports(target_dim, [16, 3, 1])
    start = module.start(shared, x, y, real, "gelu")
    u = apply(shared, x, "gelu").masked_fill(~real.unsqueeze(2), 0.0)
    read = module.read_out(x.masked_fill(~real.unsqueeze(2), 0.0), u, y, real)
    queries = torch.randn(3, 7, D, generator=seeded(9))
    matrix, bias = read.matrix_BEE[:, :target_dim, :target_dim], read.bias_BE[:, None, :target_dim]
    expected = apply(shared, queries, "gelu") @ matrix.transpose(1, 2) + bias
    found = apply_batched(start, queries, "gelu")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    shapes = ((3, H, D), (3, H), (3, target_dim, H), (3, target_dim))
    assert tuple(t.shape for t in start) == shapes


@pytest.mark.parametrize("target_dim", [5, 16])
def test_padded_pairs_change_no_bit_whatever_they_hold(target_dim: int) -> None:
    module, shared = attention(target_dim), theta(target_dim)
    x, y, real = supports(target_dim, [0, 1, 7, 15])
    expected = module.start(shared, x, y, real, "gelu")
    for poison in POISONS:
        padded = ~real.unsqueeze(2)
        found = module.start(
            shared, x.masked_fill(padded, poison), y.masked_fill(padded, poison), real, "gelu"
        )
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("target_dim", [5, 16, 32])
def test_alone_or_in_any_company_a_stream_gets_the_same_bits(target_dim: int) -> None:
    module, shared = attention(target_dim), theta(target_dim)
    lengths = [seed % 17 for seed in range(33)]
    x, y, real = supports(target_dim, lengths)
    together = module.start(shared, x, y, real, "gelu")
    for low, high in ((0, 1), (1, 2), (7, 8), (32, 33), (3, 5), (5, 13), (1, 33)):
        part = module.start(shared, x[low:high], y[low:high], real[low:high], "gelu")
        for mine, theirs in zip(part, together, strict=True):
            assert torch.equal(mine, theirs[low:high])


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_a_poisoned_stream_is_alone_in_it(data: st.DataObject) -> None:
    module, shared = attention(5), theta(5)
    lengths = data.draw(st.lists(st.integers(1, 16), min_size=2, max_size=6))
    x, y, real = supports(5, lengths)
    expected = module.start(shared, x, y, real, "gelu")
    victim = data.draw(st.integers(0, len(lengths) - 1))
    side = data.draw(st.sampled_from([x, y]))
    side[victim, 0, 2] = data.draw(st.sampled_from(POISONS))
    found = module.start(shared, x, y, real, "gelu")
    for mine, theirs in zip(found, expected, strict=True):
        for b in range(len(lengths)):
            if b != victim:
                assert torch.equal(mine[b], theirs[b])


def test_the_gradient_is_that_of_finite_differences() -> None:
    module = attention(5, refinements=0).double()
    shared = Mlp(*(t.double() for t in theta(5)))
    x, y, real = (t.double() if t.is_floating_point() else t for t in supports(5, [9, 2], 16))

    def loss(w2: Tensor, generators: Tensor, coordinates: Tensor, y: Tensor) -> Tensor:
        named = {
            "family.generators_PEE": generators,
            "coordinates.weight": coordinates,
        }
        started: Mlp = torch.func.functional_call(_Start(module), named, (shared, w2, x, y, real))
        return apply_batched(started, x, "gelu").square().mean()

    weights = (shared.w2, module.family.generators_LEE, module.coordinates.weight, y)
    inputs = tuple(t.detach().clone().requires_grad_() for t in weights)
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-6, fast_mode=True)


class _Start(torch.nn.Module):
    """`start` as a forward pass with parameters that can be replaced."""

    def __init__(self, module: Attention) -> None:
        super().__init__()
        self.family, self.coordinates = module.family, module.coordinates
        self.module = [module]

    def forward(self, shared: Mlp, w2: Tensor, x: Tensor, y: Tensor, real: Tensor) -> Mlp:
        return self.module[0].start(shared._replace(w2=w2), x, y, real, "gelu")


def test_every_parameter_learns() -> None:
    module = attention(16).requires_grad_(True)
    x, y, real = supports(16, [16, 5, 2, 0])
    started = module.start(theta(16), x, y, real, "gelu")
    torch.autograd.backward(apply_batched(started, x, "gelu").square().mean())
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_a_spec_is_read_back_as_it_was() -> None:
    module = attention(5, generators=8, blocks=1)
    again = Attention.from_spec(module.spec(), D, H, 5)
    assert again.config == module.config
    x, y, real = supports(5, [4, 0])
    for mine, theirs in zip(
        again.start(theta(5), x, y, real, "tanh"),
        module.start(theta(5), x, y, real, "tanh"),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def spec_with(**config: Any) -> PartSpec:
    spec = attention(5).spec()
    return replace(spec, config=dict(spec.config) | config)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_with(kind="mlp"), "kind is 'mlp'"),
        (spec_with(depth=3), "config has"),
        (spec_with(width=33), "no multiple of 16"),
        (spec_with(generators=3), "generators is 3"),
        (spec_with(generators=6), "no multiple of 4"),
        (spec_with(blocks=True), "blocks is True"),
        (spec_with(width=2.5), "width is 2.5"),
        (spec_with(target_dim=10**9), "target_dim is 1000000000"),
        (spec_with(target_dim=6), "for dims .12, 6., θ has .12, 5."),
        (spec_with(blocks=1), "wrong shape"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(spec: PartSpec, message: str) -> None:
    with pytest.raises(BadMetaInit, match=message):
        Attention.from_spec(spec, D, H, 5)


@pytest.mark.parametrize("damage", ["missing", "unknown", "shape", "nan", "float64"])
def test_tensors_that_do_not_fit_are_refused(damage: str) -> None:
    spec = attention(5).spec()
    tensors: dict[str, Any] = dict(spec.tensors)
    name = "coordinates.bias"
    match damage:
        case "missing":
            del tensors[name]
        case "unknown":
            tensors["other"] = tensors[name]
        case "shape":
            tensors[name] = tensors[name][:-1]
        case "nan":
            tensors[name] = np.full_like(tensors[name], np.nan)
        case _:
            tensors[name] = tensors[name].astype(np.float64)
    with pytest.raises(BadMetaInit, match=name if damage != "unknown" else "other"):
        Attention.from_spec(replace(spec, tensors=tensors), D, H, 5)
