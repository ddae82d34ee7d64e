"""What every encoder does: check one content at a time, then turn many into features at once.

R = rows (contents), X = source or target dim
"""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import Tensor

from model.theta.meta_init import Modality
from model.values.contents import Content


class Encoder(Protocol):
    """Turns contents of one modality into feature vectors; its weights are fixed."""

    @property
    def modality(self) -> Modality:
        """The modality of the contents that `prepare` takes."""

    @property
    def dim(self) -> int:
        """How many features a content has (X)."""

    def prepare(self, content: Content) -> NDArray[Any]:
        """Checks one content and returns it as an array, which `encode` takes.

        Cheap, without torch, and safe from any thread. Arrays of different contents may differ in
        length. Raises BadContent when the content cannot be used.
        """

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns the features (R, X) of prepared contents, float32, on the encoder's device.

        A content's features are the same to the bit whatever else is in the call.
        """
