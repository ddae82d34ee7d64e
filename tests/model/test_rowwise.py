"""A row's bits do not depend on where it stands, nor on what the other rows hold."""

import pytest
import torch
from torch.nn import functional

from model.encoders.rowwise import RowwiseLinear


@pytest.mark.parametrize("rows", [2, 4, 8, 16])
@pytest.mark.parametrize(("inputs", "outputs"), [(18, 6), (23, 11), (318, 1), (288, 64), (1, 1)])
@torch.no_grad()
def test_a_row_has_the_same_bits_wherever_it_stands(rows: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(rows * inputs)
    linear = RowwiseLinear(inputs, outputs)
    x_RI = torch.randn(rows, inputs)
    expected_RO = linear(x_RI)
    for shift in range(1, rows):
        turned_RO = linear(torch.roll(x_RI, shift, 0))
        assert torch.equal(torch.roll(turned_RO, -shift, 0), expected_RO)
    for row in range(rows):
        other_RI = torch.randn(rows, inputs)
        other_RI[row] = x_RI[row]
        assert torch.equal(linear(other_RI)[row], expected_RO[row])


def test_it_is_the_linear_map() -> None:
    linear = RowwiseLinear(23, 11)
    x_RI = torch.randn(5, 23)
    expected_RO = functional.linear(x_RI, linear.weight, linear.bias)
    torch.testing.assert_close(linear(x_RI), expected_RO)
