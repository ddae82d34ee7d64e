"""Meta-training of θ: the outer loop over a source of episodes, until it no longer helps.

B = streams in batch, S = support pairs, Q = query pairs, D = source dim, E = target dim

    draw -> share -> outer gradient -> sum over processes

and `model.meta.loop` does the rest. The result is a function of recipe, data, parent and the inner
loop's form, on the same machine with as many threads and processes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from model.inner import learners
from model.inner.cost_rule import Form
from model.meta import adversary, distributed, outer
from model.meta.adversary import Discriminator
from model.meta.episodes import EpisodeBatch, EpisodeSource
from model.meta.loop import run
from model.meta.parameters import MetaParameters
from model.meta.progress import Progress, Saving, seeded
from model.meta.recipe import Recipe
from model.meta.shared_features import train_shared_features
from model.meta.state import TrainingState
from model.theta.meta_init import MetaInit, canonical_json
from model.values.errors import BadData

BETAS = (0.0, 0.9)
"""Betas of the discriminator's AdamW. Without momentum, because it makes two sides that chase each
other swing."""


@dataclass(frozen=True, slots=True)
class Data:
    """Episodes to train on, and to validate on."""

    train: EpisodeSource
    validation: EpisodeSource | None = None
    """None: no validation; all steps are done, and the last average is the result."""
    identity: Mapping[str, str] | None = None
    """What tells this data from other data in a checkpoint: content hashes, for example."""


@dataclass(frozen=True, slots=True)
class MetaTrained:
    """The result of a meta-training."""

    parameters: MetaParameters
    """The averaged parameters that validated best; without validation the last ones."""
    progress: Progress


def train_theta(
    data: Data,
    recipe: Recipe,
    parent: MetaInit | None = None,
    saving: Saving | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    form: Form = "auto",
) -> MetaTrained:
    """Meta-train from scratch or from `parent`; continue from the checkpoint `saving.path` where
    there is one.

    `on_step` is called after every step. `form` is the form of the inner loop: the two agree to
    rounding, so a training gives about the same in either, though not the same bytes. Raises
    BadData when dims of the sources (or the parent) differ, BadCheckpoint when the checkpoint
    cannot be read or is of another recipe, data, parent or form, Diverged when too many steps in a
    row are not finite.
    """
    parameters = _begin(data, recipe, parent, form)
    if recipe.shared_steps and parent is None and not (saving and saving.path.exists()):
        train_shared_features(parameters, data.train, on_step)
    training = _ThetaTraining(parameters, data)
    run(
        training.state,
        recipe.schedule(),
        training.accumulate,
        training.validate if data.validation is not None else None,
        saving,
        _identity(data, recipe, parent, parameters.form),
        on_step,
    )
    return MetaTrained(training.state.result, training.state.progress)


def facts_of(trained: MetaTrained) -> dict[str, str]:
    """Return how θ was trained as facts for its file: the recipe with its seed, and the outcome."""
    progress = trained.progress
    outcome: dict[str, int | float | str | None] = {
        "form": trained.parameters.form,
        "steps": progress.step,
        "skipped": progress.skipped,
        "ended": progress.ended,
    }
    if progress.best_loss is not None:
        outcome |= {"best_step": progress.best_step, "validation_loss": progress.best_loss}
    recipe = trained.parameters.recipe.to_config()
    return {"recipe": canonical_json(recipe), "training": canonical_json(outcome)}


def _begin(data: Data, recipe: Recipe, parent: MetaInit | None, form: Form) -> MetaParameters:
    dims = (data.train.source_dim, data.train.target_dim)
    others = {} if parent is None else {parent.version: (parent.source_dim, parent.target_dim)}
    if data.validation is not None:
        others["validation"] = (data.validation.source_dim, data.validation.target_dim)
    for name, other in others.items():
        if other != dims:
            raise BadData(f"{name} has source and target dims {other}, training data {dims}")
    if parent is None:
        return MetaParameters.fresh(*dims, recipe, form)
    return MetaParameters.from_meta_init(parent, recipe, form)


def _identity(data: Data, recipe: Recipe, parent: MetaInit | None, form: Form) -> dict[str, object]:
    return {
        "recipe": recipe.to_config(),
        "data": dict(data.identity or {}),
        "dims": [data.train.source_dim, data.train.target_dim],
        "validated": data.validation is not None,
        "parent": None if parent is None else parent.content_hash,
        "form": form,
    }


class _ThetaTraining:
    """A training of θ under way: its state, and where its gradients come from."""

    def __init__(self, parameters: MetaParameters, data: Data) -> None:
        recipe = parameters.recipe
        rival = None
        if recipe.generator == "adversarial":
            discriminator = Discriminator(data.train.target_dim, recipe)
            rate = recipe.adversary.rate
            rival = (
                discriminator,
                AdamW(discriminator.parameters(), lr=rate, betas=BETAS, weight_decay=0.0),
            )
        self._rival, self._source = rival, data.train
        self.state = TrainingState(
            parameters, _optimiser(parameters), averaged=True, rival=rival, name="θ"
        )
        self._judged: EpisodeBatch | None = None
        if data.validation is not None:
            generator = seeded(recipe.seed, "validation")
            self._judged = data.validation.draw(generator, recipe.validation_streams)

    def accumulate(self, step: int) -> dict[str, float]:
        """See `model.meta.loop.Accumulate`."""
        recipe = self.state.module.recipe
        generator = seeded(recipe.seed, "episodes", step)
        batch = distributed.share(self._source.draw(generator, recipe.streams))
        if self._rival is None:
            losses = {"outer_loss": outer.accumulate(self.state.module, batch, recipe.streams)}
        else:
            losses = self._against(*self._rival, batch, step)
        summed = distributed.sum_gradients(self.state.learned, torch.stack(list(losses.values())))
        return dict(zip(losses, summed.tolist(), strict=True))

    def validate(self, parameters: MetaParameters) -> dict[str, float]:
        """Return loss and R@1 of the validation episodes, means over those of all processes."""
        assert self._judged is not None
        return validation_figures(parameters, self._judged)

    def _against(
        self, discriminator: Discriminator, optimiser: Optimizer, batch: EpisodeBatch, step: int
    ) -> dict[str, Tensor]:
        """Make the discriminator's step on the outputs as they are, then add the outer gradient
        against it. Return the losses, scalars."""
        parameters, recipe = self.state.module, self.state.module.recipe
        here = len(batch.x_support_BSD) > 0
        zero = torch.zeros(())
        o_BQE = outer.adapted_outputs(parameters, batch) if here else zero
        optimiser.zero_grad()
        loss = zero
        if here:
            loss = outer.accumulate_discriminator(
                discriminator, batch, o_BQE, recipe.streams, recipe.adversary.penalty
            )
        loss = distributed.sum_gradients(discriminator.parameters(), loss.view(1))[0]
        if bool(torch.isfinite(loss)):
            optimiser.step()
        weight = adversary.weight_at(step / recipe.steps, recipe)
        paired = adversarial = zero
        if here:
            paired, adversarial = outer.accumulate_against(
                parameters, discriminator, batch, o_BQE, recipe.streams, weight
            )
        # every process knows the whole discriminator loss: its share of it adds up to it again
        share = loss / distributed.world()
        return {"outer_loss": paired, "adversarial_loss": adversarial, "discriminator_loss": share}


def validation_figures(parameters: MetaParameters, batch: EpisodeBatch) -> dict[str, float]:
    """Return the mean paired loss and R@1 over the batch's streams, those of all processes."""
    shares, streams = distributed.share(batch), parameters.recipe.streams
    total_2 = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for first in range(0, len(shares.x_support_BSD), streams):
            part = EpisodeBatch(*(tensor[first : first + streams] for tensor in shares))
            o_BQE = outer.adapted_outputs(parameters, part)
            total_2[0] += outer.paired_loss(parameters, part, o_BQE).sum()
            total_2[1] += _recall_at_1(o_BQE, part).sum()
    loss, recall = (distributed.total(total_2) / len(batch.x_support_BSD)).tolist()
    return {"validation_loss": loss, "validation_r_at_1": recall}


def _recall_at_1(o_BQE: Tensor, batch: EpisodeBatch) -> Tensor:
    """Return the share of each stream's queries (B) whose own target is nearest, among the targets
    of all its queries."""
    real_BQ = batch.real_query_BQ
    distance_BQQ = torch.cdist(o_BQE, batch.y_query_BQE).masked_fill(~real_BQ[:, None], torch.inf)
    own_BQ = distance_BQQ.argmin(2) == torch.arange(real_BQ.shape[1])
    return (own_BQ & real_BQ).sum(1) / real_BQ.sum(1).clamp(min=1)


def _optimiser(parameters: MetaParameters) -> Optimizer:
    """Return the optimiser of θ's mapping, of its generator and of what is learned as logarithms,
    each with its peak rate."""
    recipe = parameters.recipe
    mapping = list(parameters.mapping.values())
    if recipe.learner == "reptile":
        return SGD([{"params": mapping, "lr": recipe.epsilon}])
    generator = [] if parameters.attention is None else list(parameters.attention.parameters())
    learner = parameters.learner_tensors.items()
    logarithms = [p for n, p in learner if p.requires_grad and n != learners.FACTOR]
    factor = [p for n, p in learner if p.requires_grad and n == learners.FACTOR]
    kinds = [
        (mapping, recipe.mapping_rate or recipe.rate, recipe.weight_decay),
        (factor, recipe.rate, recipe.weight_decay),
        (generator, recipe.rate, recipe.weight_decay),
        (logarithms, recipe.log_rate_rate, 0.0),
    ]
    return AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for p, rate, decay in kinds if p]
    )
