"""The sinusoid benchmark: its network and inner step, its data, its judgement, its output.

B = streams in batch (functions), S = support pairs, N = pairs of a stream, D = source dim,
E = target dim, R = rows (frequencies of a grid)
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.markdown import Markdown
from torch import Tensor

from benchmarks.methods.sinusoid import BENCHMARK, SinusoidPlan, cell_figures, verdict
from benchmarks.methods.sinusoid_protocols import (
    MAML_TABLE_2,
    META_SGD_TABLE_1,
    PROTOCOLS,
    Published,
)
from benchmarks.methods.sinusoid_training import (
    DIMS,
    Learned,
    Parameters,
    Points,
    fresh,
    inner_step,
    meta_test,
    meta_trained,
    network_outputs,
    repeated,
    sinusoids,
)
from benchmarks.report import tables


def network(seed: int = 0) -> Parameters:
    g = torch.Generator().manual_seed(seed)
    return tuple(0.4 * torch.randn(t.shape, generator=g).double() for t in fresh(g, (2, 6, 5, 3)))


def pairs(functions: int, points: int, seed: int = 1) -> Points:
    g = torch.Generator().manual_seed(seed)
    return Points(*(torch.randn(functions, points, d, generator=g).double() for d in (2, 3)))


def alone(theta: Parameters, x_ND: Tensor) -> Tensor:
    """One function's outputs, as the formula has them."""
    (w1, b1, w2, b2, w3, b3), h = theta, x_ND
    h = torch.clamp(h @ w1.T + b1, min=0)
    return torch.clamp(h @ w2.T + b2, min=0) @ w3.T + b3


def test_a_batch_of_networks_computes_one_at_a_time() -> None:
    each = [network(seed) for seed in range(4)]
    x_BND = pairs(4, 6).x
    found = network_outputs(tuple(torch.stack(t) for t in zip(*each, strict=True)), x_BND)
    for mine, theta, x_ND in zip(found, each, x_BND, strict=True):
        torch.testing.assert_close(mine, alone(theta, x_ND))


def test_fresh_weights_are_cut_off_at_two_deviations_and_biases_are_nothing() -> None:
    w1, b1, w2, b2, w3, _ = fresh(torch.Generator().manual_seed(0), (1, 400, 400, 1))
    assert [tuple(w.shape) for w in (w1, w2, w3)] == [(400, 1), (400, 400), (1, 400)]
    assert w2.abs().max() <= 0.02
    # A normal cut off at two deviations keeps 0.8796 of its own.
    assert float(w2.std()) == pytest.approx(0.008796, rel=0.01)
    assert not b1.any()
    assert not b2.any()


@pytest.mark.parametrize("exact", [False, True])
def test_an_inner_step_of_a_batch_is_that_of_one_at_a_time(exact: bool) -> None:
    theta, support = network(), pairs(3, 4)
    rates = [0.03 * torch.rand_like(t) for t in theta]
    found = inner_step(repeated(theta, 3), rates, support, exact=False)
    for b, (x_SD, y_SE) in enumerate(zip(*support, strict=True)):
        leaves = tuple(t.clone().requires_grad_() for t in theta)
        loss = (alone(leaves, x_SD) - y_SE).square().mean()
        slopes = torch.autograd.grad(loss, leaves)
        for mine, t, rate, slope in zip(found, theta, rates, slopes, strict=True):
            torch.testing.assert_close(mine[b].detach(), t - rate * slope)


def test_the_outer_gradient_is_second_order() -> None:
    support, query = pairs(3, 4), pairs(3, 5, seed=7)
    leaves = [t.requires_grad_() for t in network()]
    leaves += [(0.03 * torch.rand_like(t)).detach().requires_grad_() for t in leaves]

    def outer(*tensors: Tensor, exact: bool = True) -> Tensor:
        moved = inner_step(repeated(tensors[:6], 3), tensors[6:], support, exact=exact)
        return (network_outputs(moved, query.x) - query.y).square().mean()

    assert torch.autograd.gradcheck(outer, leaves, fast_mode=True)


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
    basis_RS2 = torch.stack([(grid[:, None] * x[:, 0]).sin(), (grid[:, None] * x[:, 0]).cos()], 2)
    ab_R21 = torch.linalg.lstsq(basis_RS2, y.expand(len(grid), -1, -1)).solution
    best = (basis_RS2 @ ab_R21 - y).square().sum((1, 2)).argmin()
    a, b = ab_R21[best, :, 0]
    # a·sin + b·cos = A·sin(ωx − φ) with a = A cos φ, b = −A sin φ
    return torch.stack([torch.hypot(a, b), torch.atan2(-b, a), grid[best]])


def test_even_query_points_go_from_end_to_end() -> None:
    _, query = sinusoids(torch.Generator(), 3, (1.0, 1.0), (5, 11), even=True)
    assert query.x[2, :, 0].tolist() == pytest.approx([float(x) for x in range(-5, 6)])


def test_meta_training_learns_and_the_seed_makes_it_the_same_again() -> None:
    protocol = replace(META_SGD_TABLE_1, iterations=700, functions=200)
    learned, again = (meta_trained(protocol, 3, lambda _: None) for _ in range(2))
    for mine, same in zip(
        (*learned.theta, *learned.rates), (*again.theta, *again.rates), strict=True
    ):
        assert torch.equal(mine, same)
    assert 0.005 <= learned.start <= 0.1
    assert len({rate for rates in learned.rates for rate in rates.flatten().tolist()}) > 1000
    before = meta_test(protocol, _fresh(), 0, Published(5, 1, 0.0))
    after = meta_test(protocol, learned, 0, Published(5, 1, 0.0))
    assert after.shape == (2, 200, 100)
    assert after[1].mean() < 0.9 * before[1].mean()
    assert after[1].mean() < after[0].mean()


def _fresh() -> Learned:
    return meta_trained(replace(META_SGD_TABLE_1, iterations=0), 3, lambda _: None)


def test_later_rates_hold_from_the_second_step_on() -> None:
    protocol = replace(MAML_TABLE_2, functions=20)
    theta = tuple(0.3 * torch.randn(t.shape) for t in fresh(torch.Generator(), DIMS))
    learned = Learned(theta, [torch.tensor(0.01)] * len(theta), 0.01)
    full, halved, none = (
        meta_test(protocol, learned, 0, Published(5, 3, 0.0, rates_after_first_step=later))
        for later in (1.0, 0.5, 0.0)
    )
    assert torch.equal(full[:2], halved[:2])
    assert not torch.allclose(full[2], halved[2])
    assert torch.equal(none[1], none[3])


def test_figures_are_means_and_intervals_over_functions() -> None:
    """Two seeds with errors 1, 2, 3, 4 in all: mean 2.5, s² = 5/3."""
    errors = [torch.tensor([[1.0] * 100, [2.0] * 100]), torch.tensor([[3.0] * 100, [4.0] * 100])]
    found = cell_figures(errors, MAML_TABLE_2)
    assert found["ours"] == 2.5
    assert found["interval"] == pytest.approx(1.96 * math.sqrt(5 / 3) / 2, rel=1e-3)
    assert found["by_seed"] == [1.5, 3.5]
    theirs = 1.96 * math.sqrt(5 / 3) / math.sqrt(600)
    assert found["their_interval_by_our_losses"] == pytest.approx(theirs, rel=1e-3)
    assert (found["functions"], found["diverged"]) == (4, 0)


def test_what_diverges_is_counted_and_not_left_out() -> None:
    errors = torch.tensor([[1.0] * 100, [float("nan")] * 100, [1e9] * 100])
    found = cell_figures([errors], MAML_TABLE_2)
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
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("sinusoid", "--quick", "--seeds", 2, "--out", tmp_path / "figures.json") == 0
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
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thirty outer steps reproduce nothing; judged, they must not pass."""
    barely = SinusoidPlan((replace(PROTOCOLS[0], iterations=30, functions=500),))
    monkeypatch.setattr("benchmarks.methods.sinusoid.BENCHMARK", replace(BENCHMARK, quick=barely))
    assert run("sinusoid", "--quick") == 1
    assert "worse" in capsys.readouterr().err


def test_the_table_fits_a_terminal() -> None:
    report = BENCHMARK.run(BENCHMARK.quick, lambda _: None)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Markdown(tables(report)))
    assert "…" not in console.export_text()
