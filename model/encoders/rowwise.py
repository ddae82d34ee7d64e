"""A linear map whose every row has the same bits wherever it stands.

N = rows, K = inputs, D = outputs

Matrix products choose their order of summation by how a row lies in memory. With inputs and
outputs padded to whole cache lines all rows lie alike: measured (`tests/model/test_rowwise.py`,
x86), not promised by torch.
"""

from torch import Tensor, nn
from torch.nn import functional

LINE = 16
"""float32 in a cache line."""


class RowwiseLinear(nn.Linear):
    """W·x + b."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, K) -> (N, D)."""
        inputs, outputs = -self.in_features % LINE, -self.out_features % LINE
        weight_DK = functional.pad(self.weight, (0, inputs, 0, outputs))
        bias_D = functional.pad(self.bias, (0, outputs))
        result_ND = functional.linear(functional.pad(input, (0, inputs)), weight_DK, bias_D)
        return result_ND[..., : self.out_features]
