"""What hidden space keeps of every pair, slot by slot, on one device.

Z = slots, W = window size, R = rows (new pairs), H = hidden units, B = streams in batch (a chunk),
S = support pairs, N = pairs of a stream (capacities for support and query), X = source or target
dim

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
    """What is made once of R new pairs, when they arrive."""

    p_RH: Tensor
    r_RH: Tensor
    t_R: Tensor
    before_R: Tensor
    onto_usual_R: Tensor
    """μ·x, where θ tells the mean μ of its usual sources; else 0."""


class Gathered(NamedTuple):
    """What is kept of B streams' rows (B, N)."""

    projected: Projected
    """Of targets y, not of ŷ (`model.inner.hidden.projected.in_units`)."""
    before_BN: Tensor
    """The rows' losses by θ."""
    onto_usual_BN: Tensor | None


class Projections:
    """Holds the projections of every slot's pairs on one device.

    The last slot stays zero: padding is gathered from it.
    """

    def __init__(
        self, capacity: int, size: int, hidden_dim: int, device: torch.device, *, usual: bool
    ) -> None:
        """`usual` says that θ tells the mean of its usual sources."""
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
        self._onto_usual = block(size) if usual else None

    @property
    def bytes_per_stream(self) -> int:
        """Bytes that one slot takes."""
        blocks = [self._p, self._r, self._t, self._before, self._g, self._gamma]
        if self._onto_usual is not None:
            blocks.append(self._onto_usual)
        return sum(block[0].numel() * block.element_size() for block in blocks)

    def put(self, rows_R: Tensor, new: New) -> None:
        """Stores new pairs' projections in their rows (slot · W + place)."""
        self._p.view(-1, self._p.shape[2]).index_copy_(0, rows_R, new.p_RH)
        self._r.view(-1, self._r.shape[2]).index_copy_(0, rows_R, new.r_RH)
        self._t.view(-1).index_copy_(0, rows_R, new.t_R)
        self._before.view(-1).index_copy_(0, rows_R, new.before_R)
        if self._onto_usual is not None:
            self._onto_usual.view(-1).index_copy_(0, rows_R, new.onto_usual_R)

    def put_grams(self, rows_R: Tensor, g_RW: Tensor, gamma_RW: Tensor) -> None:
        """Stores new pairs' products with all pairs of their slots: a Gram's row and column."""
        slots, places = rows_R // self._size, rows_R % self._size
        for block, new in ((self._g, g_RW), (self._gamma, gamma_RW)):
            block[slots, places] = new
            block[slots, :, places] = new

    def gather(self, rows_BN: Slots, support: int) -> Gathered:
        """Returns what is kept of B streams' rows (B, N). Support rows come first. Rows of −1 are
        padding."""
        real = rows_BN >= 0
        rows = np.where(real, rows_BN, self._blank)
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
        before_BN = self._before.view(-1).index_select(0, flat).view(rows.shape)
        if self._onto_usual is None:
            return Gathered(projected, before_BN, None)
        onto_BN = self._onto_usual.view(-1).index_select(0, flat).view(rows.shape)
        return Gathered(projected, before_BN, onto_BN)

    def _products(self, rows: Slots, real: NDArray[np.bool_], support: int) -> Slots:
        """Where the Grams' numbers lie (B, S, N); for padding, in the slot that stays zero."""
        at = rows[:, :support, None] * self._size + (rows % self._size)[:, None, :]
        return np.where(real[:, :support, None] & real[:, None, :], at, self._blank * self._size)


def gram_rows(kept_ZWX: FloatArray, rows: Slots, new_RX: FloatArray) -> FloatArray:
    """Returns each new pair's products with all pairs of its slot (R, W), itself among them.

    `new_RX` may have further rows. New pairs of one slot that stand together, as those of a window
    that is loaded, cost one call.
    """
    made = np.empty((len(rows), kept_ZWX.shape[1]), np.float32)
    slots, start = rows // kept_ZWX.shape[1], 0
    for end in [*(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(rows)]:
        dots(kept_ZWX[slots[start]], new_RX[start:end, None], made[start:end])
        start = end
    return made


def dots(left: FloatArray, right: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Returns products over the last axis. Each is one BLAS call, whose bits depend on its two
    vectors alone and not on their order."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: FloatArray = np.vecdot(left, right, out=out)
    return found
