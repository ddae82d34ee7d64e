"""A training's state as one safetensors file: tensors, and everything else as JSON.

The file appears whole or not at all, and says which recipe and data it belongs to: continuing with
others would give a θ that no seed explains. Never pickle.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as write_safetensors
from torch import Tensor
from torch.optim import Optimizer

from model.meta.progress import Progress
from model.theta.meta_init import canonical_json
from model.values.errors import BadCheckpoint
from model.values.outside import check_depth, parse_tensor_file, raising_only

FORMAT = "meta-training/2"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stands."""

    identity: Mapping[str, Any]
    """The recipe, the data and the start that the training belongs to; JSON-like."""
    progress: Mapping[str, Any]
    """The fields of `Progress`; JSON-like."""
    tensors: Mapping[str, Tensor]
    """Parameters, their average, the best so far, and the optimisers' moments, by name."""

    def to_bytes(self) -> bytes:
        """Return the content of a checkpoint file."""
        metadata = {
            "adaptd.format": FORMAT,
            "adaptd.identity": canonical_json(self.identity),
            "adaptd.progress": canonical_json(self.progress),
        }
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors.items()}
        return write_safetensors(tensors, metadata)

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "Checkpoint":
        """Read what `to_bytes` returned; errors name the place `where`. Raises BadCheckpoint."""
        with raising_only(BadCheckpoint, f"{where}: not a readable checkpoint"):
            metadata = parse_tensor_file(data).metadata
            found = metadata.get("adaptd.format")
            if found != FORMAT:
                raise BadCheckpoint(f"format is {found!r}, this adaptd continues {FORMAT!r}")
            # cloned: what safetensors returns may lie across cache lines, and sum in another order
            tensors = {name: tensor.clone() for name, tensor in parse_safetensors(data).items()}
            identity = _json_with_infinities(metadata["adaptd.identity"])
            progress = _json_with_infinities(metadata["adaptd.progress"])
        return cls(identity, progress, tensors)

    def progress_at(self, where: str) -> Progress:
        """Return the progress; errors name the place `where`. Raises BadCheckpoint."""
        try:
            return Progress(**self.progress)
        except TypeError as error:
            raise BadCheckpoint(f"{where}: progress is malformed: {error}") from error


def _json_with_infinities(text: str) -> Any:
    """Returns the value of a JSON text. A loss may be infinite, for which JSON has no number."""
    value = json.loads(text)
    check_depth(value)
    return value


def write_checkpoint(path: Path, data: bytes) -> None:
    """Replace the file at once: after a crash at any moment it is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or the new name might not outlive a power cut
    finally:
        os.close(folder)


def read_checkpoint(path: Path) -> bytes | None:
    """Return the file's content, or None where there is no file. Raises BadCheckpoint."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read: {error.strerror or error}") from error


def check_identity(found: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raise BadCheckpoint, naming every field that differs, unless both are equal."""
    theirs, ours = _leaves(found), _leaves(json.loads(canonical_json(expected)))
    differing = sorted(n for n in theirs | ours if theirs.get(n) != ours.get(n))
    if differing:
        each = [f"{n} is {theirs.get(n)!r} there and {ours.get(n)!r} here" for n in differing]
        raise BadCheckpoint(
            f"{where} is of another training: {'; '.join(each)}. To continue it, ask for what it "
            "was begun with; to begin anew, delete the file or name another with --checkpoint"
        )


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = [_leaves(inner, f"{prefix}.{n}" if prefix else n) for n, inner in value.items()]
        return {name: leaf for part in parts for name, leaf in part.items()}
    return {prefix: value}


def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> None:
    """Overwrite every target with the tensor of its name. Raises BadCheckpoint where that one is
    missing or of another shape or dtype."""
    for name, target in targets.items():
        found = tensors.get(name)
        if found is None or found.shape != target.shape or found.dtype != target.dtype:
            described = "missing" if found is None else f"{found.dtype} {tuple(found.shape)}"
            expected = f"{target.dtype} {tuple(target.shape)}"
            raise BadCheckpoint(f"{where}: {name} is {described}, not {expected}")
        with torch.no_grad():
            target.copy_(found)


def optimiser_tensors(name: str, optimiser: Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments and step counts, as tensors whose names begin with `name`."""
    state = optimiser.state_dict()["state"]
    return {f"{name}.{i}.{key}": t for i, each in state.items() for key, t in each.items()}


def restore_optimiser(name: str, optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimiser_tensors` returned under this name."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        owner, _, rest = path.partition(".")
        if owner == name:
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
