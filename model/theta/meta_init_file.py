"""Writes θ as a safetensors file, or as the same bytes for a Kafka record, and reads it back.

The tensors are those of the mapping (`mapping.*`) and of the parts: the generator, the learner, the
encoders, and the mean and spread of the sources it was trained on (`generator.*`, `learner.*`,
`source_encoder.*`, `target_encoder.*`, `usual_sources.*`). The metadata holds all other facts and a
hash over everything. Tensors are float32, but stored as float16 where that loses
nothing: an encoder whose weights were rounded to float16 takes half the room. Equal θs give equal
bytes. Nothing is ever pickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as write_safetensors

from model.theta.meta_init import MetaInit, canonical_json
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.errors import BadMetaInit
from model.values.outside import TensorFile, parse_json, parse_tensor_file, raising_only

FORMAT = "meta-init/2"
MAX_BYTES = 256 * 2**20
PARTS = ("generator", "learner", "source_encoder", "target_encoder", "usual_sources")
SHIPPED = ("emoji-lowrank", "emoji-lowrank-maml", "emoji-both", "emoji-names")
"""Names of the θs that ship with adaptd; the first one that fits is taken."""


def meta_init_to_bytes(meta_init: MetaInit) -> bytes:
    """Returns θ as the bytes of a safetensors file; equal θs give equal bytes."""
    header = {"adaptd.format": FORMAT, "adaptd.content_hash": meta_init.content_hash}
    header |= {"adaptd.facts": canonical_json(meta_init.header())}
    tensors = {name: compact(tensor) for name, tensor in meta_init.tensors().items()}
    return with_sorted_header(write_safetensors(tensors, header))


def meta_init_from_bytes(data: bytes, where: str) -> MetaInit:
    """Returns the θ that a safetensors file's bytes hold; `where` names the file in errors.

    Raises BadMetaInit when the bytes are not safetensors, of another format, damaged, or do not
    fit together.
    """
    with raising_only(BadMetaInit, where):
        return _meta_init(parse_tensor_file(data))


def save_meta_init(meta_init: MetaInit, path: Path) -> None:
    """Writes θ to a file."""
    path.write_bytes(meta_init_to_bytes(meta_init))


def load_meta_init(path: Path, max_bytes: int = MAX_BYTES) -> MetaInit:
    """Read θ from a file.

    Raises BadMetaInit when the file is missing, when it is larger than `max_bytes` (checked before
    reading), and for what `meta_init_from_bytes` refuses.
    """
    return meta_init_from_bytes(read_limited(path, max_bytes), str(path))


def shipped(name: str = "emoji-lowrank") -> Path:
    """Returns the path of a θ that ships with adaptd.

    The default maps pictures of emoji to the spaces of tenants (`model.emoji.tenants`) of low rank.
    """
    return Path(__file__).parent / "shipped" / f"{name}.safetensors"


def _meta_init(file: TensorFile) -> MetaInit:
    """Returns the θ that a file holds. `meta_init_from_bytes` guards whatever this raises."""
    found = file.metadata.get("adaptd.format", "none")
    if found != FORMAT:
        raise BadMetaInit(f"adaptd.format is {found!r}, this adaptd reads {FORMAT!r}")
    with raising_only(BadMetaInit, "incomplete or malformed"):
        facts = parse_json(file.metadata.get("adaptd.facts", ""))
        meta_init = _assemble(float32_tensors(file), facts)
    found_hash = meta_init.content_hash
    expected_hash = file.metadata.get("adaptd.content_hash", "none")
    if found_hash != expected_hash:
        raise BadMetaInit(
            f"damaged: contents hash to {found_hash[:12]}…, the file says {expected_hash[:12]}…"
        )
    return meta_init


def _assemble(tensors: Mapping[str, FloatArray], header: dict[str, Any]) -> MetaInit:
    parts = {
        name: PartSpec(header.pop(name), _within(f"{name}.", tensors))
        for name in PARTS
        if name in header
    }
    fields: dict[str, Any] = {"mapping": _within("mapping.", tensors), **parts, **header}
    meta_init = MetaInit(**fields)
    if unexpected := set(tensors) - set(meta_init.tensors()):
        raise BadMetaInit(f"unexpected tensors {sorted(unexpected)}")
    return meta_init


def compact(tensor: FloatArray) -> NDArray[np.floating[Any]]:
    """Returns the tensor as float16 where that loses nothing, else as it is."""
    with np.errstate(over="ignore"):
        half = tensor.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), tensor) else tensor


def float32_tensors(file: TensorFile) -> dict[str, NDArray[Any]]:
    """Returns a file's tensors, those in float32 that `compact` made float16."""
    return {
        name: tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor
        for name, tensor in file.tensors.items()
    }


def _within(prefix: str, tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    names = sorted(name for name in tensors if name.startswith(prefix))
    return {name.removeprefix(prefix): tensors[name] for name in names}


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Returns a file's bytes. Raises BadMetaInit when it is too large or cannot be read."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise BadMetaInit(f"{path}: {size} bytes, more than the limit of {max_bytes}")
        return path.read_bytes()
    except BadMetaInit:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = getattr(error, "strerror", None) or error
        raise BadMetaInit(f"{path}: cannot be read: {why}") from error


def with_sorted_header(data: bytes) -> bytes:
    """Returns the same file with its JSON header sorted: safetensors writes it in random order."""
    size = int.from_bytes(data[:8], "little")
    header = canonical_json(json.loads(data[8 : 8 + size])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]
