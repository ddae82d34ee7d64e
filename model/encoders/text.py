"""The text encoder: a recurrent network over characters, for any language and script.

N = texts, L = characters, G = n-gram lengths, W = width, T = recurrent steps, H = hidden, D = dim

No tokenizer and no alphabet: a character and the n-grams that end at it are hashed into one table
of embeddings (the hashing trick; Weinberger et al. 2009, Bojanowski et al. 2017), so that every
code point there is, or will be, has one. Neighbouring positions are joined `stride` at a time,
two GRUs read forwards and backwards (Cho et al. 2014), and the maximum of each of their units over
the text, besides the mean of the embeddings, is mapped to the features, at norm √D.

Texts are read as people would call them equal: NFKC, casefolded, NFKC again (Unicode's
NFKC_Casefold but for ignorable characters), white space as single spaces. What is longer than
`max_chars` after that is cut there, at a character.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.encoders.rowwise import RowwiseLinear
from model.encoders.sequences import in_chunks, reversed_NL, scaled, valid_NL
from model.encoders.trained_part import read_net, read_sizes, size, spec_of
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import Content
from model.values.errors import BadContent, BadMetaInit

KIND = "char-gru/1"
ROWS = {"cpu": 8, "cuda": 128}
"""Texts of a chunk; a lone text costs a whole one."""
BASE_LENGTH = 8
EMBEDDING_STD = 0.3
"""Of fresh embeddings: small, so that what is learned about a character soon outweighs it."""
_MIX = 2_654_435_761
"""Knuth's multiplicative hash, 2^32 / golden ratio (The Art of Computer Programming, 6.4)."""


@dataclass(frozen=True, slots=True)
class TextSizes:
    """All that decides the network's shape."""

    dim: int = size(1, 65_536, 64)
    max_chars: int = size(1, 65_536, 128)
    buckets: int = size(1, 2**20, 6_144)
    """Rows of the table of embeddings."""
    grams: tuple[int, ...] = size(1, 8, (1, 2, 3))
    """Lengths of the n-grams that are hashed."""
    width: int = size(1, 4_096, 48)
    stride: int = size(1, 8, 2)
    """Characters that one recurrent step reads; divides 8."""
    hidden: int = size(1, 4_096, 64)

    def __post_init__(self) -> None:
        """Raises BadMetaInit when a padded text would not fall into whole steps."""
        if BASE_LENGTH % self.stride:
            raise BadMetaInit(f"{KIND}: stride {self.stride} does not divide {BASE_LENGTH}")


class TextNet(nn.Module):
    """Code points to features; every length in one batch."""

    def __init__(self, sizes: TextSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.buckets, sizes.width)
        self.forwards = nn.GRU(sizes.width * sizes.stride, sizes.hidden, batch_first=True)
        self.backwards = nn.GRU(sizes.width * sizes.stride, sizes.hidden, batch_first=True)
        self.linear = RowwiseLinear(sizes.width + 2 * sizes.hidden, sizes.dim)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)

    def forward(self, codes_NL: Tensor, length_N: Tensor) -> Tensor:
        """Features (N, D) at norm √D of code points, int64; what stands behind a text's length
        (1 or more) is not looked at. L is a multiple of the stride."""
        valid = valid_NL(length_N, codes_NL.shape[1])
        ids_NLG = hashed_grams(codes_NL * valid, self.sizes.grams, self.sizes.buckets)
        h_NLW = self.embedding(ids_NLG).sum(2) * valid[:, :, None]
        mean_NW = h_NLW.sum(1) / length_N[:, None]
        n, longest, width = h_NLW.shape
        stride = self.sizes.stride
        h_NTW = h_NLW.reshape(n, longest // stride, stride * width)
        step_N = (length_N + stride - 1) // stride
        h_NTH = bidirectional(h_NTW, step_N, self.forwards, self.backwards)
        gone_NT1 = ~valid_NL(step_N, h_NTH.shape[1])[:, :, None]
        most_NH = h_NTH.masked_fill(gone_NT1, float("-inf")).amax(1)
        return scaled(self.linear(torch.cat([mean_NW, most_NH], 1)))

    def spec(self) -> PartSpec:
        """Config and weights, as θ files hold them."""
        return spec_of(KIND, self.sizes, self)


class TextEncoder:
    """Texts to features; its weights are fixed."""

    modality: Modality = "text"

    def __init__(self, spec: PartSpec, device: torch.device) -> None:
        """Raises BadMetaInit when config and tensors do not make a network of this kind."""
        sizes = read_sizes(TextSizes, KIND, spec.config)
        self.net = read_net(lambda: TextNet(sizes), spec, device)
        self._device = device

    @property
    def dim(self) -> int:
        """D."""
        return self.net.sizes.dim

    def prepare(self, content: Content) -> NDArray[Any]:
        """Code points (L), int32, of the text as it is read.

        Raises BadContent: `wrong_modality`, or `empty_text` when there is nothing but white space.
        """
        if not isinstance(content, str):
            kind = type(content).__name__
            raise BadContent("wrong_modality", f"text must be a string, not {kind}")
        return code_points(content, self.net.sizes.max_chars)

    def encode(self, prepared: Sequence[NDArray[Any]]) -> Tensor:
        """Features (N, D), each by its own text alone, to the bit."""
        rows = ROWS[self._device.type]
        return in_chunks(self._forward, prepared, self.dim, rows, BASE_LENGTH, self._device)

    def _forward(self, codes_RL: Tensor, length_R: Tensor) -> Tensor:
        features: Tensor = self.net(codes_RL.to(torch.int64), length_R)
        return features


def code_points(text: str, max_chars: int) -> NDArray[np.int32]:
    """The normalised text's code points (L), int32, 1 <= L <= max_chars; raises `empty_text`."""
    # cut before normalising too: that takes quadratic time on endless combining marks
    read = _spaced(_spaced(text)[: 2 * max_chars])
    for form in (str.casefold, _nfkc):
        read = form(_nfkc(read))
    read = _spaced(read)[:max_chars]
    if not read:
        raise BadContent("empty_text", f"text of {len(text)} characters has no visible one")
    return np.array([ord(character) for character in read], np.int32)


def hashed_grams(codes_NL: Tensor, grams: tuple[int, ...], buckets: int) -> Tensor:
    """For each position the bucket of each n-gram that ends there (N, L, G), int64.

    A text's start reads as code points 0.
    """
    places = []
    for n in grams:
        key_NL = torch.full_like(codes_NL, n)
        for back in range(n):
            shifted_NL = nn.functional.pad(codes_NL, (back, 0))[:, : codes_NL.shape[1]]
            # stays below 2^63: 31 bits times 32 bits
            key_NL = ((key_NL ^ shifted_NL) * _MIX >> 7) & 0x7FFF_FFFF
        places.append(key_NL % buckets)
    return torch.stack(places, 2)


def bidirectional(h_NTW: Tensor, step_N: Tensor, forwards: nn.GRU, backwards: nn.GRU) -> Tensor:
    """Hidden states (N, T, 2H) of two GRUs; those of the first step_N steps see those alone."""
    ahead_NTH = forwards(h_NTW)[0]
    back_NTH = backwards(reversed_NL(h_NTW, step_N))[0]
    return torch.cat([ahead_NTH, reversed_NL(back_NTH, step_N)], 2)


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _spaced(text: str) -> str:
    return " ".join(text.split())
