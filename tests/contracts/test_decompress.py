"""Payloads of every codec unpack as kafka-python's own decoders do, up to a size and no further."""

from __future__ import annotations

import gzip
from random import Random

import pytest
from kafka import codec
from snappy import UncompressError

from daemon.adapters.kafka_python.decompress import decompressed

CODECS = {
    1: codec.gzip_encode,
    2: codec.snappy_encode,
    3: codec.lz4_encode,
    4: codec.zstd_encode,
}
BY_NUMBER = pytest.mark.parametrize("number", CODECS)
PLAIN = Random(0).randbytes(70_000) + bytes(300_000)


@BY_NUMBER
@pytest.mark.parametrize("size", [1, 100, 66_000, 370_000])
@pytest.mark.parametrize("more", [0, 1, 2**28])
def test_what_fits_comes_whole(number: int, size: int, more: int) -> None:
    plain = PLAIN[:size]
    assert decompressed(number, CODECS[number](plain), size + more) == plain


@BY_NUMBER
@pytest.mark.parametrize("size", [1, 100, 66_000, 370_000])
def test_a_byte_too_many_is_refused(number: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"more than {size - 1}"):
        decompressed(number, CODECS[number](PLAIN[:size]), size - 1)


def test_members_of_gzip_count_together() -> None:
    data = gzip.compress(b"a" * 600) + gzip.compress(b"b" * 600) + bytes(8)
    assert decompressed(1, data, 1_200) == b"a" * 600 + b"b" * 600
    with pytest.raises(ValueError, match="more than 1199"):
        decompressed(1, data, 1_199)


@pytest.mark.parametrize(
    ("number", "error"), [(1, EOFError), (2, UncompressError), (3, RuntimeError)]
)
def test_what_is_cut_is_an_error(number: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        decompressed(number, CODECS[number](PLAIN)[:-9])


@pytest.mark.parametrize("number", [0, 5, 6, 7])
def test_no_other_codec_is_known(number: int) -> None:
    with pytest.raises(ValueError, match="no such codec"):
        decompressed(number, b"x")
