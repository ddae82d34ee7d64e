"""The sinusoid benchmark: its written-out gradient, its data, its judgement, its output.

B = streams, S = support pairs, N = query pairs, P = all parameters in one vector
"""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.numerics.outer_gradient import (
    Outer,
    Pairs,
    layers_of,
    outer_gradient,
    parameters_in,
)
from benchmarks.numerics.sinusoid import as_table, bench, command, figures, verdict
from benchmarks.numerics.sinusoid_protocols import (
    MAML_TABLE_2,
    META_SGD_TABLE_1,
    PROTOCOLS,
    quick_of,
)
from benchmarks.numerics.sinusoid_runs import DIMS, Learned, meta_test, meta_train, sinusoids
from model.inner import deep as inner
from model.inner.learner import Support
from model.mappings import deep

SHAPES = [(1, 40, 40, 1), (2, 6, 3), (3, 4, 5, 6, 2)]


def case(dims: tuple[int, ...], *, one_rate: bool) -> tuple[Tensor, Tensor, Pairs, Pairs]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    theta_P = 0.4 * normal(parameters_in(dims))
    rates = torch.tensor(0.03, dtype=torch.float64) if one_rate else 0.03 * normal(len(theta_P))
    support, query = (Pairs(normal(5, n, dims[0]), normal(5, n, dims[-1])) for n in (4, 7))
    return theta_P, rates, support, query


def by_autograd(
    theta_P: Tensor, rates: Tensor, dims: tuple[int, ...], support: Pairs, query: Pairs
) -> Outer:
    """Through the product's inner loop: autograd of autograd."""
    leaves = [t.clone().requires_grad_() for t in (theta_P, rates)]

    def forward(tensors: inner.Parameters, x_BND: Tensor) -> Tensor:
        return deep.apply_batched(deep.layered(tensors), x_BND, "relu")

    given = Support(*support, torch.ones(support.x.shape[:2], dtype=torch.bool))
    each = deep.flat(layers_of(leaves[1].expand_as(leaves[0]), dims))
    adapted = inner.adapt(
        forward, deep.flat(layers_of(leaves[0], dims)), [each], given, second_order=True
    )
    loss = (forward(adapted, query.x) - query.y).square().mean()
    return Outer(loss.detach(), *torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("one_rate", [True, False])
def test_the_written_out_outer_gradient_is_exact(dims: tuple[int, ...], one_rate: bool) -> None:
    theta_P, rates, support, query = case(dims, one_rate=one_rate)
    found = outer_gradient(theta_P, rates, dims, support, query)
    expected = by_autograd(theta_P, rates, dims, support, query)
    rates_gradient = found.rates_P.sum() if one_rate else found.rates_P
    for mine, theirs in zip((*found[:2], rates_gradient), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_the_second_order_term_is_there() -> None:
    """The mean of ∇L_Q(θ′), the first-order gradient, is another one."""
    theta_P, rates, support, query = case(SHAPES[1], one_rate=True)
    small = outer_gradient(theta_P, rates, SHAPES[1], support, query).theta_P
    adapted_away = outer_gradient(theta_P, 0 * rates, SHAPES[1], support, query).theta_P
    plain = by_autograd(theta_P, 0 * rates, SHAPES[1], support, query).theta_P
    torch.testing.assert_close(adapted_away, plain, rtol=1e-11, atol=1e-12)
    assert (small - plain).abs().max() > 1e-3


def test_layers_lie_in_the_vector_in_order_and_share_its_memory() -> None:
    vector = torch.arange(float(parameters_in((2, 3, 1))))
    layers = layers_of(vector, (2, 3, 1))
    assert layers[0].w.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layers[0].b.tolist() == [6, 7, 8]
    assert layers[1].w.tolist() == [[9, 10, 11]]
    assert layers[1].b.tolist() == [12]
    assert layers[1].b.data_ptr() == vector[12:].data_ptr()


@pytest.mark.parametrize("protocol", [MAML_TABLE_2, META_SGD_TABLE_1])
def test_functions_are_sinusoids_of_the_protocol(protocol: object) -> None:
    """Recovered from their points alone: y = a·sin(ωx) + b·cos(ωx), at the best ω on a grid."""
    assert protocol in (MAML_TABLE_2, META_SGD_TABLE_1)
    frequencies = (1.0, 1.0) if protocol is MAML_TABLE_2 else (0.8, 1.2)
    support, _ = sinusoids(torch.Generator().manual_seed(0), 200, frequencies, (40, 3))
    assert support.x.min() >= -5
    assert support.x.max() <= 5
    grid = torch.linspace(0.7, 1.3, 241, dtype=torch.float64)
    found = torch.stack([_fit(x, y, grid) for x, y in zip(*support, strict=True)])
    amplitude, phase, frequency = found.unbind(1)
    assert amplitude.min() > 0.09
    assert amplitude.max() < 5.01
    assert amplitude.mean() == pytest.approx(2.55, abs=0.3)
    assert phase.mean() == pytest.approx(math.pi / 2, abs=0.2)
    assert frequency.min() == pytest.approx(frequencies[0], abs=0.01)
    assert frequency.max() == pytest.approx(frequencies[1], abs=0.01)


def _fit(x_S1: Tensor, y_S1: Tensor, grid: Tensor) -> Tensor:
    """Amplitude, phase and frequency by least squares."""
    x, y = x_S1.double(), y_S1.double()
    basis_GS2 = torch.stack([(grid[:, None] * x[:, 0]).sin(), (grid[:, None] * x[:, 0]).cos()], 2)
    ab_G21 = torch.linalg.lstsq(basis_GS2, y.expand(len(grid), -1, -1)).solution
    best = (basis_GS2 @ ab_G21 - y).square().sum((1, 2)).argmin()
    a, b = ab_G21[best, :, 0]
    # a·sin + b·cos = A·sin(ωx − φ) with a = A cos φ, b = −A sin φ
    return torch.stack([torch.hypot(a, b), torch.atan2(-b, a), grid[best]])


def test_even_query_points_go_from_end_to_end() -> None:
    _, query = sinusoids(torch.Generator(), 3, (1.0, 1.0), (5, 11), even=True)
    assert query.x[2, :, 0].tolist() == pytest.approx([float(x) for x in range(-5, 6)])


def test_meta_training_learns_and_the_seed_makes_it_the_same_again() -> None:
    protocol = replace(META_SGD_TABLE_1, iterations=700, functions=200)
    learned, again = (meta_train(protocol, 3, lambda _: None) for _ in range(2))
    assert torch.equal(learned.theta_P, again.theta_P)
    assert torch.equal(learned.rates, again.rates)
    assert 0.005 <= learned.start <= 0.1
    assert len(set(learned.rates.tolist())) > 1000
    before = meta_test(protocol, _fresh(), 0, shots=5, steps=1, later=1.0)
    after = meta_test(protocol, learned, 0, shots=5, steps=1, later=1.0)
    assert after.shape == (2, 200, 100)
    assert after[1].mean() < 0.9 * before[1].mean()
    assert after[1].mean() < after[0].mean()


def _fresh() -> Learned:
    return meta_train(replace(META_SGD_TABLE_1, iterations=0), 3, lambda _: None)


def test_later_rates_hold_from_the_second_step_on() -> None:
    protocol = replace(MAML_TABLE_2, functions=20)
    learned = Learned(0.3 * torch.randn(parameters_in(DIMS)), torch.tensor(0.01), 0.01)
    full, halved, none = (
        meta_test(protocol, learned, 0, shots=5, steps=3, later=later) for later in (1.0, 0.5, 0.0)
    )
    assert torch.equal(full[:2], halved[:2])
    assert not torch.allclose(full[2], halved[2])
    assert torch.equal(none[1], none[3])


def test_figures_are_means_and_intervals_over_functions() -> None:
    """Two seeds with errors 1, 2, 3, 4 in all: mean 2.5, s² = 5/3."""
    errors = [torch.tensor([[1.0] * 100, [2.0] * 100]), torch.tensor([[3.0] * 100, [4.0] * 100])]
    found = figures(errors, MAML_TABLE_2)
    assert found["ours"] == 2.5
    assert found["interval"] == pytest.approx(1.96 * math.sqrt(5 / 3) / 2, rel=1e-3)
    assert found["by_seed"] == [1.5, 3.5]
    theirs = 1.96 * math.sqrt(5 / 3) / math.sqrt(600)
    assert found["their_interval_by_our_losses"] == pytest.approx(theirs, rel=1e-3)
    assert (found["functions"], found["diverged"]) == (4, 0)


def test_what_diverges_is_counted_and_not_left_out() -> None:
    errors = torch.tensor([[1.0] * 100, [float("nan")] * 100, [1e9] * 100])
    found = figures([errors], MAML_TABLE_2)
    assert (found["ours"], found["diverged"]) == (None, 2)


@pytest.mark.parametrize(
    ("ours", "interval", "expected"),
    [
        (0.70, 0.02, "agrees"),
        (0.61, 0.02, "agrees"),
        (0.60, 0.02, "better"),
        (0.76, 0.02, "worse"),
        (None, None, "worse"),
    ],
)
def test_verdict(ours: float | None, interval: float | None, expected: str) -> None:
    assert verdict(ours, interval, 0.67, 0.045) == expected


def test_quick_prints_every_published_cell_and_judges_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(True, tmp_path / "figures.json", seeds=2) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report == json.loads((tmp_path / "figures.json").read_text())
    cells = [cell for block in report["tables"] for cell in block["cells"]]
    assert [cell["published"] for cell in cells if cell["rates_after_first_step"] == 0.5] == [
        0.67,
        0.38,
        0.35,
    ]
    assert [cell["published"] for cell in cells[5:]] == [0.90, 0.63, 0.50, 1.13, 0.85, 0.71]
    assert {cell["verdict"] for cell in cells} == {None}
    assert report["seeds"] == [0, 1]
    for text in ("published", "Meta-SGD (Li)", "0.90 ±0.16", "0.63 ±~"):
        assert text in printed.err


def test_a_figure_worse_than_published_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty outer steps reproduce nothing; judged, they must not pass."""
    barely = [replace(p, iterations=30, functions=500) for p in PROTOCOLS[:1]]
    monkeypatch.setattr("benchmarks.numerics.sinusoid.PROTOCOLS", barely)
    assert command(False, None) == 1
    assert "worse" in capsys.readouterr().err


def test_the_table_fits_a_terminal() -> None:
    report = bench([quick_of(p) for p in PROTOCOLS], 1, lambda _: None)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(as_table(report))
    assert "…" not in console.export_text()
