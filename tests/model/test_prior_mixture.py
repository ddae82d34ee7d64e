"""The mixture generator beside a Gaussian process computed without its algebra, and its promises.

B = streams in batch, S = support pairs (padded), Q = query pairs, D = source dim, H = hidden units,
E = target dim, K = inner steps (candidate prior means), U = numbers of an embedding (rows of the
covariance factor)
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.inner.generators import generator_of
from model.inner.learner import Support
from model.mappings.attention import AttentionConfig
from model.mappings.mlp import Mlp, apply_batched, expand, output_batched
from model.mappings.prior_mixture import Mixture
from model.meta.fresh import fresh_theta_of_kind
from model.serving.packing import with_idle_units
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

D, H, E, RANK, S = 8, 32, 5, 11, 7
CPU = torch.device("cpu")


def mixture(dtype: torch.dtype = torch.float64) -> Mixture:
    """One whose parameters all matter."""
    made = Mixture.fresh(AttentionConfig(D, E), H, RANK, seed=0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.05 * noise.to(dtype))
    return made.requires_grad_(False)


def theta(dtype: torch.dtype = torch.float64) -> Mlp:
    generator = torch.Generator().manual_seed(2)
    shapes = ((H, D), (H,), (E, H), (E,))
    drawn = (torch.randn(s, generator=generator, dtype=torch.float64) / 3.0 for s in shapes)
    return Mlp(*(t.to(dtype) for t in drawn))


def pairs(dtype: torch.dtype = torch.float64) -> Support:
    """Streams of 7, 3, no and 1 pairs; NaN where padded."""
    generator = torch.Generator().manual_seed(3)
    x_BSD = torch.randn(4, S, D, generator=generator, dtype=torch.float64)
    y_BSE = torch.randn(4, S, E, generator=generator, dtype=torch.float64)
    real_BS = torch.arange(S) < torch.tensor([7, 3, 0, 1])[:, None]
    x_BSD[~real_BS], y_BSE[~real_BS] = torch.nan, torch.nan
    return Support(x_BSD.to(dtype), y_BSE.to(dtype), real_BS)


def by_definition(made: Mixture, support: Support, x_QD: Tensor, b: int) -> np.ndarray:
    """The posterior mean at x_QD for stream b: prior mean, kernel and noise written out."""
    size = int(support.real_BS[b].sum())
    x, y = support.x_BSD[b, :size], support.y_BSE[b, :size].numpy()
    alone = Support(x[None], torch.from_numpy(y)[None], torch.ones(1, size, dtype=torch.bool))
    shared = expand(theta(), 1)
    h_BSH = functional.gelu(x @ theta().w1.T + theta().b1)[None]
    u_BSE = output_batched(shared, h_BSH)
    read = made.attention.read_out(alone.x_BSD, u_BSE, alone.y_BSE, alone.real_BS)
    solution = made.solved(shared, h_BSH, alone.y_BSE, read)
    share_K = solution.share_BK[0].numpy()
    strength, bias_strength = 1.0 / solution.penalties_B2[0].numpy()
    every_h = functional.gelu(torch.cat([x, x_QD]) @ theta().w1.T + theta().b1)
    u = (every_h @ theta().w2.T + theta().b2).numpy()
    maps = [m[0, :E, :E].numpy() for m in (read.family_BEE, read.rotation_BEE, read.matrix_BEE)]
    learned = every_h.numpy() @ made.mean_EH.numpy().T + made.mean_E.numpy()
    candidates = [np.zeros_like(u), learned, *(u @ m.T for m in maps)]
    candidates[-1] = candidates[-1] + read.bias_BE[0, :E].numpy()
    mean = sum(share * candidate for share, candidate in zip(share_K, candidates, strict=True))
    phi = every_h.numpy() @ made.factor_UH.numpy().T
    kappa = np.square(phi[:size]).sum(1).mean()
    kernel = strength * (phi @ phi.T) / kappa + bias_strength
    noise = np.diag(1.0 / read.w_BS[0].numpy())
    weights = np.linalg.solve(kernel[:size, :size] + noise, y - mean[:size])
    found: np.ndarray = mean[size:] + kernel[size:, :size] @ weights
    return found


def test_it_is_a_gaussian_process_around_the_mixed_mean() -> None:
    made, support = mixture(), pairs()
    x_QD = torch.randn(6, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    started = made.start(theta(), *support, "gelu")
    o_BQE = apply_batched(started, x_QD.expand(4, -1, -1), "gelu")
    for b in (0, 1, 3):
        expected = by_definition(made, support, x_QD, b)
        # κ is kept from 0, which shifts it by 1e-6
        np.testing.assert_allclose(o_BQE[b].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_streams_do_not_see_each_other_and_padding_is_nothing() -> None:
    made, support = mixture(torch.float32), pairs(torch.float32)
    together = made.start(theta(torch.float32), *support, "gelu")
    for b in range(4):
        alone = made.start(theta(torch.float32), *Support(*(t[b : b + 1] for t in support)), "gelu")
        for mine, theirs in zip(together, alone, strict=True):
            assert torch.isfinite(mine[b]).all()
            torch.testing.assert_close(mine[b], theirs[0], rtol=1e-4, atol=1e-5)


def test_it_is_written_and_read_as_it_was() -> None:
    made = mixture(torch.float32)
    again = Mixture.from_spec(made.spec(), D, H, E)
    started = [m.start(theta(torch.float32), *pairs(torch.float32), "gelu") for m in (made, again)]
    for mine, theirs in zip(*started, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"rank": RANK + 1}, "wrong shape"),
        ({"rank": "11"}, "rank is '11'"),
        ({"heads": 3}, "width"),
        ({"more": 1}, "config has"),
        ({"source_dim": D + 1}, "attention is for dims"),
    ],
)
def test_what_is_no_mixture_is_refused(config: dict[str, object], message: str) -> None:
    spec = mixture(torch.float32).spec()
    with pytest.raises(BadMetaInit, match=message):
        Mixture.from_spec(PartSpec(dict(spec.config) | config, spec.tensors), D, H, E)


def test_idle_hidden_units_change_nothing() -> None:
    made = fresh_theta_of_kind((D, 19, E), generator="mixture")
    generator = generator_of(made, CPU)
    support = pairs(torch.float32)
    padded = with_idle_units(made.mapping, made.activation)
    found = [
        generator.start(Mlp(**{n: torch.tensor(t) for n, t in mapping.items()}), support)
        for mapping in (made.mapping, padded)
    ]
    torch.testing.assert_close(found[1].w2[:, :, :19], found[0].w2, rtol=1e-4, atol=1e-5)
    assert not found[1].w2[:, :, 19:].any()


def test_an_output_activation_is_refused() -> None:
    made = fresh_theta_of_kind((D, H, E), generator="mixture")
    with pytest.raises(BadMetaInit, match="'mixture'"):
        generator_of(replace(made, output_activation="tanh"), CPU)
