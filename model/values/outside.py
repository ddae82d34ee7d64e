"""The one place where bytes from outside become values: JSON text and safetensors files.

Whoever wrote the bytes may have been wrong, or hostile. Each function here raises BadBytes and
nothing else, whatever the bytes are, and `raising_only` gives the reader that calls it the same
property for what it makes of the values. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors

MAX_DEPTH = 64
"""How deep JSON may be nested. Python can follow any value of this depth; of a deeper one, hashing
or printing might fail long after it was accepted."""
MAX_MESSAGE_CHARS = 500
"""A longer message is cut: it quotes what was found, which may be as long as the file."""

T = TypeVar("T")


class BadBytes(ValueError):
    """Bytes from outside are not what they should be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """What a safetensors file holds."""

    tensors: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, str]


@contextmanager
def raising_only(error: Callable[[str], ValueError], begin: str) -> Iterator[None]:
    """Raises `error` in place of any exception of the block; its message starts with `begin`."""
    try:
        yield
    except Exception as e:
        raise error(f"{begin}: {described(e)}") from e


def described(e: Exception) -> str:
    """Returns an exception as one line of bounded length. A ValueError's message speaks for itself;
    before another's stands its class."""
    text = str(e) if isinstance(e, ValueError) else f"{type(e).__name__}: {e}"
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE_CHARS else line[:MAX_MESSAGE_CHARS] + "…"


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text. Raises BadBytes when it is no JSON (NaN and infinities are
    none), or is nested deeper than MAX_DEPTH."""
    with raising_only(BadBytes, "not JSON"):
        value = msgspec.json.decode(text)
        check_depth(value)
        return value


def parse_json_as(text: str | bytes, kind: type[T]) -> T:
    """Returns the value of a JSON text that must be of this kind. Raises BadBytes."""
    with raising_only(BadBytes, f"not the JSON of {kind.__name__}"):
        return msgspec.json.decode(text, type=kind)


def parse_tensor_file(data: bytes) -> TensorFile:
    """Returns the tensors, by name, and the metadata of a safetensors file. Raises BadBytes when it
    is none, or has a dtype that numpy lacks."""
    with raising_only(BadBytes, "not a readable safetensors file"):
        tensors = load_tensors(data)
        size = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(data[8 : 8 + size], type=_Header)
        return TensorFile(tensors, header.metadata or {})


class _Header(msgspec.Struct):
    """The JSON that a safetensors file begins with, but for its entries of tensors."""

    metadata: dict[str, str] | None = msgspec.field(default=None, name="__metadata__")


def check_depth(value: Any) -> None:
    """Raises BadBytes when a JSON value is nested deeper than MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise BadBytes(f"nested deeper than {MAX_DEPTH} levels")


def _inside(value: Any) -> list[Any]:
    """Returns what a JSON value holds, one level down."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
