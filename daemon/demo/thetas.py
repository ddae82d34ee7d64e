"""The θ that each part's worker serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.demo.part import PartName
from daemon.errors import Misconfigured
from model.emoji.drawings import LOW_RANK_DIM
from model.theta.meta_init import MetaInit, Modality
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.errors import BadMetaInit


@dataclass(frozen=True, slots=True)
class Needed:
    """What a part's θ must be, and which one it is unless another is given."""

    shipped: str
    option: str
    target_modality: Modality
    target_dim: int | None
    """None: as the θ's own encoder has it."""


NEEDED: Mapping[PartName, Needed] = {
    "tenants": Needed("emoji-lowrank", "--meta-init", "vector", LOW_RANK_DIM),
    "names": Needed("emoji-names", "--names-meta-init", "text", None),
}


def paths(given: Mapping[PartName, Path | None]) -> dict[PartName, Path]:
    """The given files, or the shipped ones."""
    return {
        part: (given.get(part) or shipped(needed.shipped)).absolute()
        for part, needed in NEEDED.items()
    }


def load_theta(part: PartName, path: Path) -> MetaInit:
    """Raises Misconfigured unless it is a θ for the part's events."""
    needed = NEEDED[part]
    try:
        theta = load_meta_init(path)
    except BadMetaInit as e:
        raise Misconfigured(f"{needed.option}: {e}") from e
    dim = needed.target_dim or theta.target_dim
    wanted = ("image", needed.target_modality, dim)
    if (theta.source_modality, theta.target_modality, theta.target_dim) != wanted:
        raise Misconfigured(
            f"{needed.option}: the demo maps image to {needed.target_modality} ({dim}), and θ "
            f"{theta.version} {theta.source_modality} to {theta.target_modality} "
            f"({theta.target_dim})"
        )
    return theta
