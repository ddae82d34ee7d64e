"""What was published on sinusoid regression, and how it was measured, as far as sources say.

Read for this: the text of Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation
of Deep Networks" (ICML 2017, arXiv:1703.03400v3), section 5.1, appendices B and C, table 2; their
code (github.com/cbfinn/maml, commit a7f45f1: main.py, maml.py, data_generator.py). Of Li, Zhou,
Chen, Li, "Meta-SGD" (arXiv:1707.09835v2), table 1 and section 4.1, the text was not at hand: its
5-shot column is quoted with intervals (0.90 ± 0.16, 1.13 ± 0.18) in a summary by others, the other
shots we know without any, and the protocol is recalled, not read. The figures speak for it: with
frequencies in [0.8, 1.2] MAML's error is near its 1.13, with all of them 1 near its 0.67.
"""

import math
from dataclasses import dataclass, replace

HIDDEN = 40  # units in each of two hidden layers, ReLU
AMPLITUDES, PHASES, INPUTS = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)
META_RATE = 1e-3
"""Adam's, the outer loop's. Theirs in the code of MAML."""


@dataclass(frozen=True, slots=True)
class Published:
    """One cell of a table: the mean squared error after some steps on some shots."""

    shots: int
    steps: int
    published: float
    published_interval: float | None = None
    """Half of the 95 % confidence interval, where a source at hand gives it."""
    rates_after_first_step: float = 1.0  # what the inner rates are multiplied by from then on
    judged: bool = True  # else ours is only shown beside it


@dataclass(frozen=True, slots=True)
class Protocol:
    """One meta-learner: how it is meta-trained and tested, and what that gave."""

    method: str
    paper: str  # its first author, for a table of ours
    source: str
    cells: tuple[Published, ...]
    frequencies: tuple[float, float]
    meta_batch: int  # functions per outer step
    iterations: int  # outer steps, each through one inner step
    rates: tuple[float, float]  # the inner rates start at one value, drawn uniformly from here
    learned_rates: bool  # one per parameter, meta-learned with θ; else the one value stays
    their_functions: int
    their_points: int
    """Functions, and points per function, that the published figure is a mean over."""
    even_points: bool  # test points evenly spaced over the inputs' range; else uniform
    queries: int = 10  # points per function and outer step to take the outer loss on
    shots: int = 5  # support points per function in meta-training
    functions: int = 5_000
    points: int = 100  # what ours is a mean over, per seed


MAML_TABLE_2 = Protocol(
    method="MAML",
    paper="Finn",
    source="Finn et al. 2017, arXiv:1703.03400v3, table 2; no intervals given",
    cells=(
        Published(5, 1, 0.67, rates_after_first_step=0.5),
        Published(5, 5, 0.38, rates_after_first_step=0.5),
        Published(5, 10, 0.35, rates_after_first_step=0.5),
        Published(5, 5, 0.38, judged=False),
        Published(5, 10, 0.35, judged=False),
    ),
    frequencies=(1.0, 1.0),
    meta_batch=25,
    iterations=70_000,  # as their code's command for sinusoids has it
    rates=(0.01, 0.01),
    learned_rates=False,
    shots=10,  # section 5.1; tested on 5, with query points apart from them
    their_functions=600,
    their_points=5,
    even_points=False,
)

META_SGD_TABLE_1 = Protocol(
    method="Meta-SGD",
    paper="Li",
    source="Li et al. 2017, arXiv:1707.09835v2, table 1",
    cells=(
        Published(5, 1, 0.90, published_interval=0.16),
        Published(10, 1, 0.63),
        Published(20, 1, 0.50),
    ),
    frequencies=(0.8, 1.2),
    meta_batch=4,
    iterations=60_000,
    rates=(0.005, 0.1),
    learned_rates=True,
    their_functions=100,
    their_points=100,
    even_points=True,
)

MAML_TABLE_1 = replace(
    META_SGD_TABLE_1,
    method="MAML",
    cells=(
        Published(5, 1, 1.13, published_interval=0.18),
        Published(10, 1, 0.85),
        Published(20, 1, 0.71),
    ),
    rates=(0.01, 0.01),
    learned_rates=False,
)

PROTOCOLS = (MAML_TABLE_2, META_SGD_TABLE_1, MAML_TABLE_1)


def quick_of(protocol: Protocol) -> Protocol:
    """Shows that everything works; its figures mean nothing and are not judged."""
    cells = tuple(replace(cell, judged=False) for cell in protocol.cells)
    return replace(protocol, iterations=30, functions=40, cells=cells)
