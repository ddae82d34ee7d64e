"""The methods that a meta-test compares: each maps every episode's query to outputs.

S = support pairs, Q = query pairs, R = rows (inputs), D = source dim, E = target dim
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from model.baselines.fit import Fit, MapTo
from model.evaluate.episodes import MetaTestEpisode
from model.mappings.mlp import AnyActivation, Mlp, apply
from model.serving.engine import Engine
from model.values.arrays import FloatArray
from model.values.episode import Adaptation
from model.values.gate import Outcome, judge

Outputs = list[FloatArray]
"""Outputs (Q, E) on the query of every episode."""
Method = Callable[[Sequence[MetaTestEpisode]], Outputs]
Adapt = Callable[[Sequence[MetaTestEpisode]], list[Adaptation]]


def fitted(fit: Fit) -> Method:
    """Make a method of a baseline that is fitted on each support alone."""
    return lambda episodes: [fit(e.x_SD, e.y_SE)(e.x_QD) for e in episodes]


def constant(mapping: MapTo) -> Method:
    """Make a method of a mapping that is the same for every stream."""
    return lambda episodes: [mapping(e.x_QD) for e in episodes]


def by_pairs(methods: Mapping[int, Method]) -> Method:
    """Make one method of several, chosen by the number of support pairs, which all episodes of a
    call share."""
    return lambda episodes: methods[len(episodes[0].x_SD)](episodes) if episodes else []


def adapting(engine: Engine) -> Adapt:
    """Return a function that adapts episodes by the engine, and keeps the last result for methods
    that ask for the same episodes in turn."""
    last: list[tuple[Sequence[MetaTestEpisode], list[Adaptation]]] = []

    def adapt(episodes: Sequence[MetaTestEpisode]) -> list[Adaptation]:
        if not last or last[0][0] is not episodes:
            last[:] = [(episodes, engine.adapt([e.for_engine for e in episodes]))]
        return last[0][1]

    return adapt


def theta(engine: Engine) -> Method:
    """Make the method that uses θ unadapted."""
    tensors = engine.theta_mapping()
    return lambda episodes: [_outputs(engine, tensors, e.x_QD) for e in episodes]


def adapted(engine: Engine, adapt: Adapt | None = None) -> Method:
    """Make the method that uses θ′, whatever the gate would say."""
    adapt = adapt or adapting(engine)
    return lambda episodes: [
        _outputs(engine, adaptation.tensors, e.x_QD)
        for adaptation, e in zip(adapt(episodes), episodes, strict=True)
    ]


def gated(engine: Engine, adapt: Adapt | None = None) -> Method:
    """Make the method that uses what the daemon would publish: θ′, or ridge, or θ, by their losses
    on the gate pairs."""
    adapt = adapt or adapting(engine)
    return lambda episodes: [
        published(engine, adaptation, e.x_QD)
        for adaptation, e in zip(adapt(episodes), episodes, strict=True)
    ]


def published(engine: Engine, adaptation: Adaptation, x_RD: FloatArray) -> FloatArray:
    """Return outputs (R, E) of the mapping that the gate lets through."""
    match judge(adaptation):
        case Outcome.ADAPTED:
            return _outputs(engine, adaptation.tensors, x_RD)
        case Outcome.RIDGE:
            assert adaptation.ridge is not None  # or the gate would not have said so
            return mapping_outputs(adaptation.ridge, x_RD, "none", "none")
        case _:
            return _outputs(engine, engine.theta_mapping(), x_RD)


def mapping_outputs(
    tensors: Mapping[str, FloatArray],
    x_RD: FloatArray,
    activation: AnyActivation,
    output_activation: AnyActivation,
) -> FloatArray:
    """Return a mapping's outputs (R, E), computed by torch: its error function is 50 times as fast
    as numpy's."""
    mlp = Mlp(**{name: torch.tensor(tensor) for name, tensor in tensors.items()})
    with torch.inference_mode():
        outputs_RE: FloatArray = apply(
            mlp, torch.tensor(x_RD), activation, output_activation
        ).numpy()
    return outputs_RE


def _outputs(engine: Engine, tensors: Mapping[str, FloatArray], x_RD: FloatArray) -> FloatArray:
    return mapping_outputs(tensors, x_RD, engine.theta.activation, engine.theta.output_activation)
