"""Writes a network as a PartSpec and reads it back; sizes are checked before memory is taken.

A kind of encoder is two classes. Its sizes are a frozen dataclass of integers, or tuples of
integers; `size` makes a field with its allowed range. Its network is an nn.Module built from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, field, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

Sizes = TypeVar("Sizes")
Net = TypeVar("Net", bound=nn.Module)
LONGEST_TUPLE = 16
"""The most integers in a field that is a tuple."""


def size(low: int, high: int, default: Any) -> Any:
    """Returns a dataclass field for an integer, or a tuple of integers, in low..high."""
    return field(default=default, metadata={"low": low, "high": high})


def read_sizes(cls: Callable[..., Sizes], kind: str, config: Mapping[str, Any]) -> Sizes:
    """Returns the sizes in a spec's config, which has all of them and nothing else but `kind`.

    Raises BadMetaInit for another kind, a missing or unknown name, or a value out of range.
    """
    if config.get("kind") != kind:
        raise BadMetaInit(f"encoder kind is {config.get('kind')!r}, not {kind!r}")
    ranges = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if set(config) - {"kind"} != set(ranges):
        raise BadMetaInit(f"{kind} config has {sorted(config)}, not kind and {sorted(ranges)}")
    for name, of in ranges.items():
        _check_range(kind, name, config[name], of.metadata, isinstance(of.default, tuple))
    return cls(
        **{n: tuple(config[n]) if isinstance(config[n], list) else config[n] for n in ranges}
    )


def read_net(make: Callable[[], Net], spec: PartSpec, device: torch.device) -> Net:
    """Returns the network that `make` builds with a spec's weights, for inference.

    Raises BadMetaInit unless names and shapes are those of the network.
    """
    with torch.device("meta"):
        net = make()
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tensor.shape for name, tensor in spec.tensors.items()}
    if found != shapes:
        raise BadMetaInit(f"{spec.kind} tensors have shapes {found}, its config asks for {shapes}")
    net.load_state_dict({n: torch.tensor(t) for n, t in spec.tensors.items()}, assign=True)
    return net.to(device).eval().requires_grad_(False)


def fresh_net(make: Callable[[], Net], seed: int) -> Net:
    """Returns the network that `make` builds with random weights drawn from a seed.

    Torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def spec_of(kind: str, sizes: Any, net: nn.Module) -> PartSpec:
    """Returns a network's sizes and a copy of its weights as a PartSpec."""
    config = {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(sizes).items()}
    tensors = {
        name: tensor.detach().cpu().numpy().astype(np.float32, copy=True)
        for name, tensor in net.state_dict().items()
    }
    return PartSpec({"kind": kind, **config}, tensors)


def _check_range(
    kind: str, name: str, value: Any, allowed: Mapping[str, int], several: bool
) -> None:
    values = value if several else [value]
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= LONGEST_TUPLE:
        raise BadMetaInit(f"{kind} {name} is {value!r}, not a list of 1 to {LONGEST_TUPLE}")
    low, high = allowed["low"], allowed["high"]
    if not all(type(v) is int and low <= v <= high for v in values):
        raise BadMetaInit(f"{kind} {name} is {value!r}, not in {low}..{high}")
