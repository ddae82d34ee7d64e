"""One kernel for the hidden-space inner loop does what torch does, on any machine as far as it can.

B = streams in batch, S = support pairs, H = hidden units, K = inner steps, N = pairs of a stream
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model.inner.batched import Objective
from model.inner.hidden import triton as hidden_triton
from model.inner.hidden.descent import descend
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation
from tests.model.hidden_device_lab import ACTIVATIONS, Shape, farthest, parts_of, problem

INTERPRETED_S = 240
CUDA = torch.device("cuda")


def test_interpreted_it_does_what_torch_does() -> None:
    """All of tests/model/triton_interpreted.py."""
    pytest.importorskip("triton")
    tests = Path(__file__).with_name("triton_interpreted.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=INTERPRETED_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("capability", "support", "units", "activation"),
    [(80, 16, 128, "gelu"), (90, 64, 512, "relu")],
)
def test_it_compiles_without_a_gpu(
    capability: int,
    support: int,
    units: int,
    activation: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the device's own code, and within the memory that the docstring says."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    metadata = _compiled(capability, support, units, activation).metadata
    rows, columns, chunk = hidden_triton.tiles(support, units).values()
    bound = 4 * max(rows * columns, chunk * (rows + columns))
    assert 0 < metadata.shared <= bound <= 48 * 1024


def _compiled(capability: int, support: int, units: int, activation: str) -> Any:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from model.inner.hidden.triton_kernel import descend_streams

    fixed = hidden_triton.tiles(support, units) | {"ACTIVATION": activation, "PRECISION": "ieee"}
    types = {
        name: "constexpr"
        if name in fixed
        else "i32"
        if name in "SHK" or name.endswith(("_stream", "_row"))
        else "*fp32"
        for name in descend_streams.arg_names
    }
    return triton.compile(
        ASTSource(descend_streams, types, fixed),
        target=GPUTarget("cuda", capability, 32),
        options=hidden_triton.compile_options(support),
    )


@pytest.mark.parametrize(
    ("objective", "support", "dtype"),
    [
        (Objective(Loss("cosine"), "relu", "none"), 16, torch.float32),
        (Objective(Loss("infonce"), "relu", "none"), 16, torch.float32),
        (Objective(MSE, "relu", "tanh"), 16, torch.float32),
        (Objective(MSE, "none", "none"), 16, torch.float32),
        (Objective(MSE, "relu", "none"), 65, torch.float32),
        (Objective(MSE, "relu", "none"), 16, torch.float64),
    ],
)
def test_what_it_does_not_do_it_says(
    objective: Objective, support: int, dtype: torch.dtype
) -> None:
    assert not hidden_triton.fits(support, objective, dtype)
    given = problem(Shape(streams=1, support=support))
    projected = given.projected._replace(p_BNH=given.projected.p_BNH.to(dtype))
    with pytest.raises(ValueError, match="no kernel"):
        hidden_triton.descend_by_kernel(given.terms, projected, given.rates_K4, objective)


def test_it_has_neither_gradient_nor_zero_steps() -> None:
    given = problem(Shape(streams=1))
    assert hidden_triton.fits(16, given.objective, torch.float32)
    with pytest.raises(ValueError, match="no gradient"):
        hidden_triton.descend_by_kernel(*given._replace(rates_K4=given.rates_K4.requires_grad_()))
    with pytest.raises(ValueError, match="no steps"):
        hidden_triton.descend_by_kernel(*given._replace(rates_K4=given.rates_K4[:0]))


def test_a_cpu_alone_has_no_kernel() -> None:
    assert not hidden_triton.available(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "shape",
    [
        Shape(streams=300, support=16, units=128, steps=5),
        Shape(streams=9, support=5, units=9, steps=1),
        Shape(streams=9, support=64, units=48, steps=4),
        Shape(streams=9, support=24, units=272, steps=16),
    ],
)
def test_on_a_gpu_it_does_what_torch_does(shape: Shape, activation: AnyActivation) -> None:
    assert hidden_triton.available(CUDA)
    given = problem(shape, activation, device="cuda")
    got = hidden_triton.descend_by_kernel(*given)
    assert farthest(got, descend(*given)) < 1e-5
    again = hidden_triton.descend_by_kernel(*given)
    assert all(map(torch.equal, parts_of(got), parts_of(again)))  # no thread outran another


@pytest.mark.gpu
def test_on_a_gpu_a_diverged_stream_is_alone() -> None:
    given = problem(Shape(streams=64), device="cuda")
    before = hidden_triton.descend_by_kernel(*given)
    given.projected.real_BN[5, 0] = True
    given.projected.p_BNH[5, 0] = float("nan")
    after = hidden_triton.descend_by_kernel(*given)
    others = torch.arange(64, device="cuda") != 5
    assert after.healthy_B.tolist() == others.tolist()
    for kept, found in zip(parts_of(before), parts_of(after), strict=True):
        assert torch.equal(kept[others], found[others])
