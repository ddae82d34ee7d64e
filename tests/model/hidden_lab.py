"""What the tests of hidden space share: scenes, and how far θ′ is from another form's.

B = streams in batch, S = support pairs (padded), Q = query pairs (padded), N = pairs of a stream (S
+ Q), R = rows, D = source dim, H = hidden units, E = target dim, K = inner steps, U = numbers of an
embedding (rows of the covariance factor)
"""

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from model.inner.batched import Objective
from model.inner.hidden.coefficients import Columns, Head
from model.inner.hidden.descent import Descent, descend
from model.inner.hidden.head import descend_head, solve_head
from model.inner.hidden.projected import Projected, Terms, project, terms
from model.inner.hidden.result import factors, weights_of
from model.inner.learner import Learner, State, Support, adapt
from model.inner.ridge_head import RidgeHead
from model.inner.sgd import GradientSteps, HeadSteps
from model.losses import Loss, value
from model.mappings.mlp import AnyActivation, Mlp, expand

LOSSES = [
    Loss("mse"),
    Loss("cosine"),
    Loss("infonce"),
    Loss("infonce", temperature=0.3, symmetric=True),
    Loss("hinge", margin=0.9),
    Loss("hinge", margin=0.9, symmetric=True),
]
ACTIVATIONS: tuple[AnyActivation, ...] = ("none", "relu", "gelu", "tanh", "sigmoid")
KINDS = ("full", "head", "ridge", "kernel")
LENGTHS = [8, 1, 5, 0, 3]
GARBAGE = [float("nan"), float("inf"), 3e38]


class Scene(NamedTuple):
    """One θ and its streams."""

    theta: Mlp
    rates_K4: Tensor
    x_BND: Tensor
    y_BNE: Tensor
    real_BN: Tensor
    support: int

    @property
    def pairs(self) -> Support:
        """The support."""
        s = self.support
        return Support(self.x_BND[:, :s], self.y_BNE[:, :s], self.real_BN[:, :s])

    def to(self, dtype: torch.dtype) -> "Scene":
        """The same numbers in another precision."""
        return self._replace(
            theta=Mlp(*(tensor.to(dtype) for tensor in self.theta)),
            rates_K4=self.rates_K4.to(dtype),
            x_BND=self.x_BND.to(dtype),
            y_BNE=self.y_BNE.to(dtype),
        )


def scene_of(
    loss: Loss,
    dtype: torch.dtype = torch.float64,
    lengths: list[int] | None = None,
    dims: tuple[int, int, int] = (6, 16, 5),
    steps: int = 4,
    seed: int = 0,
    garbage: float = float("nan"),
) -> Scene:
    """Ragged streams of up to 8 support pairs and 3 queries; garbage in padded ones, and a target
    that occurs twice. Numbers are float32's, whatever their type."""
    g = torch.Generator().manual_seed(seed)
    lengths = LENGTHS if lengths is None else lengths
    support, queries, (source, hidden, target) = max(8, *lengths), 3, dims
    count = len(lengths)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    w1, b1, w2, b2 = (
        0.4 * normal(*shape) for shape in ((hidden, source), (hidden,), (target, hidden), (target,))
    )
    theta = Mlp(w1, b1, w2, b2)
    x_BND, y_BNE = (
        normal(count, support + queries, source),
        normal(count, support + queries, target),
    )
    y_BNE[:, 2] = 1.5 * y_BNE[:, 1]
    real_BS = torch.arange(support) < torch.tensor(lengths)[:, None]
    real_BQ = torch.arange(queries) < torch.arange(1, count + 1)[:, None]
    real_BN = torch.cat([real_BS, real_BQ], 1)
    x_BND[~real_BN], y_BNE[~real_BN] = garbage, garbage
    size = 0.2 if loss.kind == "mse" else 0.05
    rates_K4 = size * (0.5 + torch.rand(steps, 4, generator=g)).to(dtype)
    return Scene(theta, rates_K4, x_BND, y_BNE, real_BN, support)


def penalties_of(scene: Scene) -> Tensor:
    """Logarithms."""
    return torch.tensor([0.3, -0.7], dtype=scene.x_BND.dtype)


def factor_of(kind: str, scene: Scene) -> Tensor | None:
    """P of the learner alpaca, with fewer rows than columns."""
    if kind != "kernel":
        return None
    hidden = len(scene.theta.b1)
    drawn = torch.randn(
        hidden // 2 + 1, hidden, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    factor_UH: Tensor = (drawn / hidden**0.5).to(scene.x_BND.dtype)
    return factor_UH


def descent_of(
    kind: str, scene: Scene, objective: Objective, first_order: bool = False
) -> tuple[Terms, Projected, Descent]:
    """In hidden space."""
    made = terms(scene.theta)
    projected = project(made, *scene[2:5], support=scene.support)
    if kind == "full":
        found = descend(made, projected, scene.rates_K4, objective, None, first_order)
    elif kind == "head":
        found = descend_head(made, projected, scene.rates_K4[:, 2:], objective, first_order)
    else:
        found = solve_head(made, projected, penalties_of(scene), objective, factor_of(kind, scene))
    return made, projected, found


def learner_of(kind: str, scene: Scene, objective: Objective, first_order: bool = False) -> Learner:
    """The same in the target space."""
    if kind == "full":
        return GradientSteps(scene.rates_K4, objective, first_order)
    if kind == "head":
        return HeadSteps(scene.rates_K4[:, 2:], objective, first_order)
    return RidgeHead(penalties_of(scene), objective, factor_of(kind, scene))


def in_full(kind: str, scene: Scene, objective: Objective, first_order: bool = False) -> State:
    """θ′ in the target space."""
    learner = learner_of(kind, scene, objective, first_order)
    return adapt(learner, expand(scene.theta, len(scene.x_BND)), scene.pairs)


def result_of(scene: Scene, made: Terms, projected: Projected, descent: Descent) -> Mlp:
    """θ′ of a descent, multiplied out."""
    x_BSD, y_BSE, _ = scene.pairs.cleaned()
    return weights_of(made, factors(made, projected, descent), x_BSD, y_BSE)


def apart(found: Mlp, expected: Mlp, theta: Mlp) -> list[float]:
    """Per tensor: the largest error of any stream, relative to how far that moved from θ (or, where
    that is little, to a hundredth of θ)."""
    errors = []
    for mine, theirs, start in zip(found, expected, theta, strict=True):
        start = start.to(theirs)
        moved_B = (theirs - start).flatten(1).norm(dim=1).clamp(min=0.01 * float(start.norm()))
        errors.append(float(((mine.to(theirs) - theirs).flatten(1).norm(dim=1) / moved_B).max()))
    return errors


def per_pair(loss: Loss, o_BNE: Tensor, scene: Scene) -> Tensor:
    """As the engine has it: the loss (B, N) of a stream which has this pair alone."""
    o_R1E, y_R1E = (t.reshape(-1, 1, t.shape[2]) for t in (o_BNE, scene.y_BNE))
    return value(loss, o_R1E, y_R1E, scene.real_BN.reshape(-1, 1)).view(scene.real_BN.shape)


Streams = TypeVar("Streams", Projected, Descent)


def row(chunk: Streams, stream: int) -> Streams:
    """One stream's part of a chunk, as a chunk of one; views."""
    alone: Streams = _rows(chunk, slice(stream, stream + 1))
    return alone


def _rows(value: Any, rows: slice) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, Projected | Descent | Head | Columns):
        return type(value)(*(_rows(field, rows) for field in value))
    return value
