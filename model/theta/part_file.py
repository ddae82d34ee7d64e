"""Writes a part of θ as a file of its own: an encoder, before there is a θ that it belongs to."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as write_safetensors

from model.theta.meta_init import Modality
from model.theta.meta_init_file import FORMAT as META_INIT_FORMAT
from model.theta.meta_init_file import (
    MAX_BYTES,
    compact,
    meta_init_from_bytes,
    read_limited,
    safetensors_header,
    widened,
    with_sorted_header,
)
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

FORMAT = "part/1"


def save_part(part: PartSpec, path: Path, facts: dict[str, str] | None = None) -> None:
    """Writes a part as a safetensors file, with config and facts in the metadata.

    Equal parts and facts give equal bytes.
    """
    config = json.dumps(dict(part.config), sort_keys=True)
    metadata = {"adaptd.format": FORMAT, "adaptd.config": config} | (facts or {})
    tensors = {name: compact(tensor) for name, tensor in sorted(part.tensors.items())}
    path.write_bytes(with_sorted_header(write_safetensors(tensors, metadata)))


def load_encoder(path: Path, modality: Modality) -> PartSpec:
    """Returns an encoder for contents of a modality, out of an encoder's own file or out of a θ.

    A θ may have it on either side. Raises BadMetaInit when the file is neither, cannot be read, or
    is a θ without such an encoder.
    """
    data = read_limited(path, MAX_BYTES)
    try:
        tensors = {name: widened(tensor) for name, tensor in parse_safetensors(data).items()}
        metadata = safetensors_header(data).get("__metadata__", {})
        if metadata.get("adaptd.format") == FORMAT:
            return PartSpec(json.loads(metadata["adaptd.config"]), tensors)
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise BadMetaInit(f"{path}: not a readable safetensors file: {error}") from error
    if metadata.get("adaptd.format") != META_INIT_FORMAT:
        raise BadMetaInit(f"{path}: neither a θ nor an encoder")
    theta = meta_init_from_bytes(data, str(path))
    for found, encoder in (
        (theta.source_modality, theta.source_encoder),
        (theta.target_modality, theta.target_encoder),
    ):
        if found == modality and encoder is not None:
            return encoder
    raise BadMetaInit(f"{path} has no encoder for {modality} contents")
