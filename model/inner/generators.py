"""What makes a stream's starting point: θ itself, or θ conditioned on the stream's support.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim

`mlp` starts every stream at θ. `adversarial` does too: its discriminator took part in
meta-training alone (`model.meta.outer`). `attention` reads the support pairs
(`model.mappings.attention`); so does `mixture`, which has a kernel on hidden units beside
(`model.mappings.prior_mixture`). The learner goes on from there, and what comes out is a plain
`Mlp` in every case.
"""

from typing import Protocol

import torch

from model.inner.learner import Support
from model.mappings.attention import Attention
from model.mappings.mlp import Mlp, expand
from model.mappings.prior_mixture import Mixture
from model.theta.meta_init import Activation, MetaInit
from model.values.errors import BadMetaInit

KINDS = ("mlp", "attention", "mixture", "adversarial")
CONDITIONED: dict[str, type[Attention] | type[Mixture]] = {
    "attention": Attention,
    "mixture": Mixture,
}
"""Kinds that read the support."""


class Generator(Protocol):
    """Makes each stream's start out of θ and the supports."""

    def start(self, theta: Mlp, support: Support) -> Mlp:
        """Returns every stream's parameters before the first inner step, stacked along B.

        A stream without pairs starts at θ unadapted.
        """


class Shared:
    """Starts every stream at θ."""

    def start(self, theta: Mlp, support: Support) -> Mlp:
        """See Generator."""
        return expand(theta, len(support.x_BSD))


class Conditioned:
    """Moves θ by the support pairs before the first step (`model.mappings.attention`)."""

    def __init__(self, attention: Attention | Mixture, activation: Activation) -> None:
        self._attention = attention
        self._activation = activation

    def start(self, theta: Mlp, support: Support) -> Mlp:
        """See Generator."""
        return self._attention.start(theta, *support, self._activation)


def generator_of(meta_init: MetaInit, device: torch.device) -> Generator:
    """Returns the generator that θ names, on `device`.

    Raises BadMetaInit when it is not known or does not fit θ.
    """
    spec = meta_init.generator
    if spec.kind not in KINDS:
        raise BadMetaInit(f"generator kind is {spec.kind!r}, not one of {', '.join(KINDS)}")
    if spec.kind not in CONDITIONED:
        if spec.tensors or set(spec.config) != {"kind"}:
            raise BadMetaInit(f"a generator of kind {spec.kind!r} has no settings and no tensors")
        return Shared()
    if meta_init.output_activation != "none":
        raise BadMetaInit(f"a generator of kind {spec.kind!r} needs the output activation 'none'")
    dims = (meta_init.source_dim, meta_init.hidden_dim, meta_init.target_dim)
    attention = (
        CONDITIONED[spec.kind].from_spec(spec, *dims).to(device).eval().requires_grad_(False)
    )
    return Conditioned(attention, meta_init.activation)
