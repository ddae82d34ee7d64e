"""The hidden-space inner loop as one kernel on a GPU: K steps of the mse, a stream to a block.

B = streams in batch, S = support pairs (padded), N = pairs of a stream (support and query, padded),
H = hidden units, A = anchors, K = inner steps, V = spanning rows (H + S), J = rows of all inner
steps (K·S)

`model.inner.hidden.descent` derives what is computed, `model.inner.hidden.triton_kernel` computes
it, as `descent.descend` does, to rounding (float32 throughout: no product takes tf32's short cut).
Instead of some 20 launches a step there is one in all. A stream's result depends on nothing else in
the batch, to the bit: neither on its size nor on its place.

What a block takes, whatever K is, with ROWS = S up to a power of two (at least 16), COLUMNS = H
likewise (but at most 64) and chunks of 16:

    shared memory   at most 4·max(ROWS·COLUMNS, 16·(ROWS + COLUMNS)) bytes:
                    5 KB for S = 16, 16 KB for S = 64
    global memory   S·V + S·K·S numbers, and S·H for gelu, beside the result's K·S·(H + V) + …

Shared memory is never what is short, nor does a large H cost any. Registers bound S: tiles of more
than 64 rows would spill, so there `fits` says no.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.coefficients import head_of
from model.inner.hidden.descent import Descent, descend, finite_streams
from model.inner.hidden.projected import Chunk, Projected, Terms, chunk_of, project, terms
from model.losses import MSE
from model.mappings.mlp import Mlp

MAX_SUPPORT = 64
TOLERANCE = 1e-4
"""What `available` allows between kernel and torch, over a result's size: no rounding comes near,
and what is wrong is off by far more."""
_CHUNK = 16
_PRECISION = "ieee"


def available(device: torch.device) -> bool:
    """Returns whether the kernel runs on a device, and right; warns of a GPU where it does not.

    Off a GPU it runs where Triton interprets (TRITON_INTERPRET=1 before the first import).
    """
    if find_spec("triton") is None:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0) and _agrees(device)
    from model.inner.hidden.triton_kernel import INTERPRETED

    return INTERPRETED


def fits(support: int, objective: Objective, dtype: torch.dtype) -> bool:
    """Returns whether `descend_by_kernel` does chunks of so many support pairs."""
    loss, activation, output_activation = objective
    known = loss.kind == "mse" and activation != "none" and output_activation == "none"
    return known and dtype == torch.float32 and 1 <= support <= MAX_SUPPORT


def descend_by_kernel(
    terms: Terms, projected: Projected, rates_K4: Tensor, objective: Objective
) -> Descent:
    """Returns what `model.inner.hidden.descent.descend` does, in new tensors.

    Raises ValueError for what `fits` denies, for no steps, and where autograd wants a gradient.
    """
    if not fits(projected.g_BSN.shape[1], objective, projected.p_BNH.dtype):
        raise ValueError(f"no kernel for {objective} and Grams {tuple(projected.g_BSN.shape)}")
    if not len(rates_K4):
        raise ValueError("no steps")
    if torch.is_grad_enabled() and any(t.requires_grad for t in (*terms, *projected, rates_K4)):
        raise ValueError("the kernel has no gradient")
    chunk = chunk_of(terms, projected, objective)
    streams, support, units = chunk.p_BSH.shape
    rows, width = len(rates_K4) * support, units + support
    new = chunk.p_BSH.new_empty
    a_BSH, beta_B1H = new(streams, support, units).zero_(), new(streams, 1, units).zero_()
    h_BJH, c_BJV = new(streams, rows, units), new(streams, rows, width)
    sums_B1V = new(streams, 1, width).zero_()
    if streams:
        _launch(terms, chunk, rates_K4, objective, (a_BSH, beta_B1H, h_BJH, c_BJV, sums_B1V))
    healthy_B = finite_streams(torch.cat([beta_B1H, sums_B1V], 2))
    head = head_of(h_BJH, c_BJV, sums_B1V)
    return Descent(a_BSH, beta_B1H.squeeze(1), head, healthy_B, objective)


def tiles(support: int, units: int) -> dict[str, int]:
    """Returns the kernel's compile-time sizes."""
    rows, columns = (max(16, 1 << (size - 1).bit_length()) for size in (support, units))
    return {"ROWS": rows, "COLUMNS": min(columns, 64), "CHUNK": _CHUNK}


def compile_options(support: int) -> dict[str, int | bool]:
    """Returns Triton's options: 4 or 8 warps of 32 threads to a block."""
    return {"num_warps": 4 if support <= 32 else 8, "num_stages": 1, "enable_fp_fusion": True}


def _launch(
    terms: Terms,
    chunk: Chunk,
    rates_K4: Tensor,
    objective: Objective,
    results: tuple[Tensor, ...],
) -> None:
    from model.inner.hidden.triton_kernel import descend_streams

    streams, support, units = chunk.p_BSH.shape
    steps, width = len(rates_K4), units + support
    new = chunk.p_BSH.new_empty
    z_BSH = new(streams, support, units) if objective.activation == "gelu" else new(1)
    inputs = (chunk.p_BSH, chunk.g_BSS, chunk.at.r_BAH, chunk.at.gram_BAA)
    with torch.cuda.device_of(chunk.p_BSH):  # type: ignore[no-untyped-call]  # torch's
        descend_streams[(streams,)](
            *(part for each in inputs for part in _strided(each)),
            *(each.contiguous() for each in (terms.m_HH, chunk.weight_BS, rates_K4)),
            *(*results, z_BSH),
            *(new(streams, support, width), new(streams, support, steps * support)),
            *(support, units, steps),
            **tiles(support, units),
            ACTIVATION=objective.activation,
            PRECISION=_PRECISION,
            **compile_options(support),
        )


def _strided(matrices: Tensor) -> tuple[Tensor, int, int]:
    """With the strides of streams and rows; columns lie side by side."""
    if matrices.stride(2) != 1:
        matrices = matrices.contiguous()
    return matrices, matrices.stride(0), matrices.stride(1)


@cache
def _agrees(device: torch.device) -> bool:
    """Whether it gives what torch gives. Triton compiles for the device at hand, with tools of the
    machine (a C compiler) that an image may lack: whatever goes wrong, torch's form serves."""
    try:
        off = _difference(device)
    except Exception as error:
        warnings.warn(f"no kernel on {device}: {type(error).__name__}: {error}", stacklevel=3)
        return False
    if off > TOLERANCE:
        warnings.warn(f"no kernel on {device}: results are off by {off:.1e}", stacklevel=3)
    return off <= TOLERANCE


@torch.inference_mode()
def _difference(device: torch.device) -> float:
    """The kernel's largest error on a small chunk, over the results' size; infinite for NaN."""

    def numbers(*shape: int) -> Tensor:
        return torch.arange(torch.Size(shape).numel(), device=device).sin().view(shape)

    made = terms(Mlp(numbers(32, 24) / 5, numbers(32), numbers(16, 32) / 5, numbers(16)))
    real_BN = torch.ones(3, 32, dtype=torch.bool, device=device)
    projected = project(made, numbers(3, 32, 24), numbers(3, 32, 16), real_BN, 16)
    arguments = (made, projected, numbers(3, 4).abs() / 5, Objective(MSE, "gelu", "none"))
    got, wanted = descend_by_kernel(*arguments), descend(*arguments)
    worst = 0.0
    for ours, theirs in ((got.a_BSH, wanted.a_BSH), (got.head.sums_B1V, wanted.head.sums_B1V)):
        off = ((ours - theirs).abs().max() / theirs.abs().max()).item()
        worst = max(worst, off if off == off else float("inf"))
    return worst
