"""What every encoder does: check a content, and turn many into features in one forward pass.

N = contents, D = features
"""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from model.theta.meta_init import Modality
from model.values.contents import Content


class Encoder(Protocol):
    """Contents of one modality to feature vectors; weights are fixed."""

    @property
    def modality(self) -> Modality:
        """What `prepare` takes."""

    @property
    def dim(self) -> int:
        """D."""

    def prepare(self, content: Content) -> NDArray[Any]:
        """Check one content and make it an array; cheap, without torch, from any thread.

        Raises BadContent. Arrays of different contents may differ in length.
        """

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Features (N, D), float32, on the encoder's device. A content's features do not depend
        on the others, to the bit."""
