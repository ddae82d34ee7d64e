"""Inner steps beyond those trained for never do harm on the support.

B = streams in batch, S = support pairs (padded), D = source dim, H = hidden units, E = target dim,
K = inner steps, N = pairs of a stream
"""

import pytest
import torch

from model.inner import reference
from model.inner.learners import CLOSED_FORMS, build
from model.losses import MSE, Loss
from model.mappings.mlp import AnyActivation, apply
from tests.model.learner_lab import (
    CASES,
    case_id,
    learner_of,
    run,
    support_loss,
    support_of,
    tensors_of,
    theta_of,
)


@pytest.mark.parametrize("growth", [1.0, 8.0, 64.0])
@pytest.mark.parametrize(("kind", "loss", "output"), CASES, ids=case_id)
def test_extra_steps_never_raise_the_support_loss(
    kind: str, loss: Loss, output: AnyActivation, growth: float
) -> None:
    support = support_of(torch.float32)
    tensors = tensors_of(kind, torch.float32)
    if kind not in CLOSED_FORMS:
        tensors["rates"][-1] *= growth  # the last rate is the one that goes on
    config = {"kind": kind, "loss": loss.config()}
    trained, more = (
        run(build(config, tensors, "gelu", output, extra), support) for extra in (0, 12)
    )
    before_B, after_B = (support_loss(s.mlp, support, loss, output) for s in (trained, more))
    assert (after_B <= before_B).all()
    assert torch.equal(trained.healthy_B, more.healthy_B)


def test_extra_steps_are_the_last_rates_steps_until_one_does_not_help() -> None:
    support = support_of(torch.float64)
    rates = tensors_of("maml", torch.float64)["rates"]
    more = run(learner_of("maml", extra_steps=4), support).mlp
    by_hand = [rates, *([rates[-1:]] * 4)]
    for b in (0, 2, 4):
        best, tried = None, None
        for steps in range(1, 6):
            x_ND, y_NE = support.x_BSD[b][support.real_BS[b]], support.y_BSE[b][support.real_BS[b]]
            tried = reference.adapt_one_stream(
                theta_of(torch.float64), torch.cat(by_hand[:steps]), x_ND, y_NE, "gelu"
            )
            loss = reference.one_stream(MSE, apply(tried, x_ND, "gelu"), y_NE)
            if best is not None and loss >= best[0]:
                break
            best = (loss, tried)
        assert best is not None
        for mine, theirs in zip(more, best[1], strict=True):
            torch.testing.assert_close(mine[b], theirs, rtol=1e-12, atol=1e-12)


def test_all_steps_together_are_capped() -> None:
    rates = {"rates": torch.full((60, 4), 1e-3)}
    learner = build({"kind": "maml"}, rates, "gelu", "none", extra_steps=100)
    assert run(learner, support_of(torch.float32)).step == 64
    with pytest.raises(ValueError, match="extra_steps is -1"):
        build({"kind": "maml"}, rates, "gelu", "none", extra_steps=-1)
