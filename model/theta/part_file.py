"""Writes a part of θ as a file of its own: an encoder, before there is a θ that it belongs to."""

import json
from pathlib import Path

from safetensors.numpy import save as write_safetensors

from model.theta.meta_init import Modality
from model.theta.meta_init_file import FORMAT as META_INIT_FORMAT
from model.theta.meta_init_file import (
    MAX_BYTES,
    compact,
    float32_tensors,
    meta_init_from_bytes,
    read_limited,
    with_sorted_header,
)
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit
from model.values.outside import TensorFile, parse_json, parse_tensor_file, raising_only

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
    return encoder_from_bytes(read_limited(path, MAX_BYTES), modality, str(path))


def encoder_from_bytes(data: bytes, modality: Modality, where: str) -> PartSpec:
    """Returns the encoder that the bytes of such a file hold; `where` names the file in errors.
    Raises BadMetaInit, whatever the bytes are."""
    with raising_only(BadMetaInit, where):
        file = parse_tensor_file(data)
        found = file.metadata.get("adaptd.format")
        if found == FORMAT:
            return _part(file)
        if found != META_INIT_FORMAT:
            raise BadMetaInit("neither a θ nor an encoder")
    theta = meta_init_from_bytes(data, where)
    for side, encoder in (
        (theta.source_modality, theta.source_encoder),
        (theta.target_modality, theta.target_encoder),
    ):
        if side == modality and encoder is not None:
            return encoder
    raise BadMetaInit(f"{where} has no encoder for {modality} contents")


def _part(file: TensorFile) -> PartSpec:
    config = parse_json(file.metadata.get("adaptd.config", ""))
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise BadMetaInit("adaptd.config must be an object with a kind")
    return PartSpec(config, float32_tensors(file))
