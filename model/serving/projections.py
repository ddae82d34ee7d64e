"""What hidden space keeps of every pair, slot by slot, on one device.

C = capacity (slots), W = window size, N = new pairs, H = hidden, B = streams of a chunk, S, Q =
capacities for support and query pairs, A = S + Q, X = D or E: source or target dim

`model.serving.hidden_windows` says what lies here and why no history of a slot changes a bit of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.inner.hidden.projected import Projected
from model.serving.windows import Slots, reserved
from model.values.arrays import FloatArray


class New(NamedTuple):
    """What is made once of N new pairs, when they arrive."""

    p_NH: Tensor
    r_NH: Tensor
    t_N: Tensor
    before_N: Tensor


class Projections:
    """Holds the projections of every slot's pairs on one device.

    The last slot stays zero: padding is gathered from it.
    """

    def __init__(self, capacity: int, size: int, hidden_dim: int, device: torch.device) -> None:
        self._size = size
        self._blank = capacity * size
        """The first row of the slot that stays zero."""

        def block(*shape: int) -> Tensor:
            if device.type == "cpu":
                return torch.from_numpy(reserved((capacity + 1, *shape)))
            return torch.zeros((capacity + 1, *shape), device=device)

        self._p, self._r = block(size, hidden_dim), block(size, hidden_dim)
        self._t, self._before = block(size), block(size)
        self._g, self._gamma = block(size, size), block(size, size)

    @property
    def bytes_per_stream(self) -> int:
        """Bytes that one slot takes."""
        blocks = (self._p, self._r, self._t, self._before, self._g, self._gamma)
        return sum(block[0].numel() * block.element_size() for block in blocks)

    def put(self, rows_N: Tensor, new: New) -> None:
        """Stores new pairs' projections in their rows (slot · W + place)."""
        self._p.view(-1, self._p.shape[2]).index_copy_(0, rows_N, new.p_NH)
        self._r.view(-1, self._r.shape[2]).index_copy_(0, rows_N, new.r_NH)
        self._t.view(-1).index_copy_(0, rows_N, new.t_N)
        self._before.view(-1).index_copy_(0, rows_N, new.before_N)

    def put_grams(self, rows_N: Tensor, g_NW: Tensor, gamma_NW: Tensor) -> None:
        """Stores new pairs' products with all pairs of their slots: a Gram's row and column."""
        slots, places = rows_N // self._size, rows_N % self._size
        for block, new in ((self._g, g_NW), (self._gamma, gamma_NW)):
            block[slots, places] = new
            block[slots, :, places] = new

    def gather(self, rows_BA: Slots, support: int) -> tuple[Projected, Tensor]:
        """Returns the projections of B streams' rows (B, A), and the rows' losses by θ (B, A).

        Support rows come first. Rows of −1 are padding.
        """
        real = rows_BA >= 0
        rows = np.where(real, rows_BA, self._blank)
        device = self._p.device
        flat = torch.from_numpy(rows.reshape(-1)).to(device)
        shape = (*rows.shape, -1)
        pairs = torch.from_numpy(self._products(rows, real, support).reshape(-1)).to(device)
        own = torch.from_numpy((rows * self._size + rows % self._size).reshape(-1)).to(device)
        gamma = self._gamma.view(-1)
        projected = Projected(
            self._p.view(-1, self._p.shape[2]).index_select(0, flat).view(shape),
            self._r.view(-1, self._r.shape[2]).index_select(0, flat).view(shape),
            self._t.view(-1).index_select(0, flat).view(rows.shape),
            self._g.view(-1).index_select(0, pairs).view(len(rows), support, -1),
            gamma.index_select(0, pairs).view(len(rows), support, -1),
            gamma.index_select(0, own).view(rows.shape),
            torch.from_numpy(real).to(device),
        )
        return projected, self._before.view(-1).index_select(0, flat).view(rows.shape)

    def _products(self, rows: Slots, real: NDArray[np.bool_], support: int) -> Slots:
        """Where the Grams' numbers lie (B, S, A); for padding, in the slot that stays zero."""
        at = rows[:, :support, None] * self._size + (rows % self._size)[:, None, :]
        return np.where(real[:, :support, None] & real[:, None, :], at, self._blank * self._size)


def gram_rows(kept_CWX: FloatArray, rows: Slots, new_NX: FloatArray) -> FloatArray:
    """Returns each new pair's products with all pairs of its slot (N, W), itself among them."""
    size = kept_CWX.shape[1]
    made = np.empty((len(rows), size), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for slot, new_X, out_W in zip((rows // size).tolist(), new_NX, made, strict=True):
            np.einsum("wx,x->w", kept_CWX[slot], new_X, out=out_W)
    return made
