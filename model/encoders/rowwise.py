"""A linear layer that gives a row the same bits wherever in the batch it stands.

R = rows, I = inputs of a layer, O = outputs of a layer

A matrix product may sum a row's terms in another order when the row starts elsewhere in a cache
line. Here inputs and outputs are padded to whole cache lines, so that all rows start alike. Torch
promises nothing of the kind: `tests/model/test_rowwise.py` measures it, on x86.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.values.arrays import ALIGNMENT


class RowwiseLinear(nn.Linear):
    """W·x + b, as torch.nn.Linear, but for the last bits."""

    def forward(self, x_RI: Tensor) -> Tensor:
        """Returns outputs (R, O) of inputs (R, I)."""
        inputs, outputs = -self.in_features % ALIGNMENT, -self.out_features % ALIGNMENT
        weight_OI = functional.pad(self.weight, (0, inputs, 0, outputs))
        bias_O = functional.pad(self.bias, (0, outputs))
        result_RO = functional.linear(functional.pad(x_RI, (0, inputs)), weight_OI, bias_O)
        return result_RO[..., : self.out_features]
