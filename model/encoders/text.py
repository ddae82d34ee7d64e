"""The text encoder: a recurrent network over characters, for any language and script.

R = rows (texts), T = time steps (characters), F = frames (recurrent steps of `stride` characters),
C = channels (n-gram lengths), U = numbers of an embedding, I = inputs of a layer,
H = hidden units (of one GRU), X = source or target dim

There is no tokenizer and no alphabet. A text goes through four stages:

1. Normalisation, so that texts which people call equal are read alike
   (`model.encoders.normalisation`). The result is cut after `max_chars` characters.
2. Embedding. At each character, each n-gram that ends there is hashed to a row of one table (the
   hashing trick; Weinberger et al. 2009, Bojanowski et al. 2017), so that every code point there
   is, or will be, has a row. The rows of a character's n-grams are summed.
3. Recurrence. The embeddings of `stride` neighbouring characters are joined to one input, and two
   GRUs (Cho et al. 2014) read the inputs, one forwards and one backwards in time.
4. Features: the largest value of each GRU's units over the text, and the mean embedding, go through
   a linear map, and the result is scaled to norm √X.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.normalisation import is_visible, normalised_text
from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, reversed_RT, scaled, valid_RT
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content
from model.values.errors import BadContent, BadMetaInit

KIND = "char-gru/1"
ROWS = {"cpu": 8, "cuda": 128}
"""Texts in a chunk, by device; a lone text costs as much as a whole chunk."""
BASE_LENGTH = 8
"""The shortest padded text, in characters."""
EMBEDDING_STD = 0.3
"""The standard deviation of fresh embeddings: small, so that training soon outweighs it."""
_MIX = 2_654_435_761
"""Knuth's multiplicative hash, 2^32 / golden ratio (The Art of Computer Programming, 6.4)."""


@dataclass(frozen=True, slots=True)
class TextSizes:
    """All that decides the shapes of the network."""

    dim: int = size(1, 65_536, 64)
    max_chars: int = size(1, 65_536, 128)
    buckets: int = size(1, 2**20, 6_144)
    """How many rows the table of embeddings has."""
    grams: tuple[int, ...] = size(1, 8, (1, 2, 3))
    """The lengths of the n-grams that are hashed."""
    width: int = size(1, 4_096, 48)
    """Numbers of an embedding (U)."""
    stride: int = size(1, 8, 2)
    """How many characters one recurrent step reads; divides 8."""
    hidden: int = size(1, 4_096, 64)
    """Hidden units of each GRU (H)."""

    def __post_init__(self) -> None:
        """Raises BadMetaInit when a padded text would not divide into whole steps."""
        if BASE_LENGTH % self.stride:
            raise BadMetaInit(f"{KIND}: stride {self.stride} does not divide {BASE_LENGTH}")


class TextNet(nn.Module):
    """Turns code points into features; texts of every length in one batch."""

    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.buckets, sizes.width)
        self.forwards = nn.GRU(sizes.width * sizes.stride, sizes.hidden, batch_first=True)
        self.backwards = nn.GRU(sizes.width * sizes.stride, sizes.hidden, batch_first=True)
        self.linear = RowwiseLinear(sizes.width + 2 * sizes.hidden, sizes.dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)

    def forward(self, codes_RT: Tensor, length_R: Tensor) -> Tensor:
        """Returns features (R, X) of code points, int64, and of the texts' lengths, at least 1.

        T is a multiple of the stride. What stands behind a text's length changes nothing.
        """
        valid = valid_RT(length_R, codes_RT.shape[1])
        ids_RTC = hashed_grams(codes_RT * valid, self.sizes.grams, self.sizes.buckets)
        h_RTU = self.embedding(ids_RTC).sum(2) * valid[:, :, None]
        mean_RU = h_RTU.sum(1) / length_R[:, None]
        n, longest, width = h_RTU.shape
        stride = self.sizes.stride
        h_RFI = h_RTU.reshape(n, longest // stride, stride * width)
        step_R = (length_R + stride - 1) // stride
        h_RFH = bidirectional(h_RFI, step_R, self.forwards, self.backwards)
        gone_RF1 = ~valid_RT(step_R, h_RFH.shape[1])[:, :, None]
        most_RH = h_RFH.masked_fill(gone_RF1, float("-inf")).amax(1)
        return scaled(self.linear(torch.cat([mean_RU, most_RH], 1)))

    def spec(self) -> PartSpec:
        """Returns config and weights, as θ files hold them."""
        return spec_of(KIND, self.sizes, self)


class TextEncoder:
    """Turns texts into features; its weights are fixed."""

    modality: Modality = "text"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a network of this kind."""
        sizes = read_sizes(TextSizes, KIND, spec.config)
        self.net = read_net(lambda: TextNet(sizes), spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """How many features a text has (X)."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Returns the code points (T), int32, of the normalised text.

        Raises BadContent: `wrong_modality`, or `empty_text` when no character of it is visible.
        """
        if not isinstance(content, str):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"text must be a string, not {kind}")
        return code_points(content, self.net.sizes.max_chars)

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Returns features (R, X); each row depends on its own text alone, to the bit."""
        rows = ROWS[self._device.type]
        return in_chunks(self._forward, prepared, self.dim, rows, BASE_LENGTH, self._device)

    def _forward(self, codes_RT: Tensor, length_R: Tensor) -> Tensor:
        features: Tensor = self.net(codes_RT.to(torch.int64), length_R)
        return features


def code_points(text: str, max_chars: int) -> NDArray[np.int32]:
    """Returns the code points (T), int32, of the normalised text: 1 <= T <= max_chars.

    Raises BadContent `empty_text` when no character of it is visible.
    """
    read = normalised_text(text, max_chars)
    if not is_visible(read):
        raise BadContent("empty_text", f"text of {len(text)} characters has no visible one")
    return np.array([ord(character) for character in read], np.int32)


def hashed_grams(codes_RT: Tensor, grams: tuple[int, ...], buckets: int) -> Tensor:
    """Returns, for each character, the bucket of each n-gram that ends there (R, T, C), int64.

    N-grams that begin before the text read code points 0 there.
    """
    places = []
    for n in grams:
        key_RT = torch.full_like(codes_RT, n)
        for back in range(n):
            shifted_RT = nn.functional.pad(codes_RT, (back, 0))[:, : codes_RT.shape[1]]
            # stays below 2^63: 31 bits times 32 bits
            key_RT = ((key_RT ^ shifted_RT) * _MIX >> 7) & 0x7FFF_FFFF
        places.append(key_RT % buckets)
    return torch.stack(places, 2)


def bidirectional(h_RFI: Tensor, step_R: Tensor, forwards: nn.GRU, backwards: nn.GRU) -> Tensor:
    """Returns the hidden states (R, F, 2H) of two GRUs, one forwards and one backwards in time.

    The states of a text's first `step_R` steps depend on those steps alone.
    """
    ahead_RFH = forwards(h_RFI)[0]
    back_RFH = backwards(reversed_RT(h_RFI, step_R))[0]
    return torch.cat([ahead_RFH, reversed_RT(back_RFH, step_R)], 2)
