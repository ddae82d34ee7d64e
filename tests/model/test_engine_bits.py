"""What one stream gets depends on nothing else in the call, to the bit.

S = support pairs, Q = query pairs, D = source dim, E = target dim
"""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from model.emoji import drawings as emoji
from model.encoders.picture import ROWS
from model.meta.fresh import fresh_theta_of_kind
from model.serving.engine import Engine
from model.theta.meta_init import Activation, MetaInit, fresh_meta_init
from model.theta.meta_init_file import load_meta_init, shipped
from tests.model.bits_lab import ODD, POISONS, assert_same_bits, episode

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
USUAL = fresh_meta_init(64, 32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("theta", [ODD, USUAL], ids=["odd-dims", "usual-dims"])
def test_alone_or_in_any_company_a_stream_gets_the_same_bits(
    theta: MetaInit, activation: Activation, device: str
) -> None:
    theta = replace(theta, activation=activation)
    engine = Engine(theta, device, chunk=32, support_capacity=9, query_capacity=3)
    episodes = [episode(theta, seed, 1 + seed % 9, seed % 4) for seed in range(70)]
    together = engine.adapt(episodes)
    for i in (0, 1, 31, 32, 33, 69):
        assert_same_bits(engine.adapt([episodes[i]])[0], together[i])
    for start, stop in ((3, 5), (3, 20), (1, 34), (40, 70)):
        for i, adapted in enumerate(engine.adapt(episodes[start:stop]), start):
            assert_same_bits(adapted, together[i])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("generator", "learner"),
    [("attention", "maml"), ("attention", "r2d2"), ("mlp", "anil"), ("mlp", "adam")],
)
@pytest.mark.parametrize("dims", [(7, 11, 5), (64, 128, 32)], ids=["odd-dims", "usual-dims"])
def test_no_generator_or_learner_reads_across_streams(
    dims: tuple[int, int, int], generator: str, learner: str, device: str
) -> None:
    theta = fresh_theta_of_kind(dims, generator, learner)
    engine = Engine(theta, device, support_capacity=9, query_capacity=3)
    episodes = [episode(theta, seed, seed % 10, 1 + seed % 3) for seed in range(20)]
    episodes[4].x_support_SD[0, 0] = np.nan
    episodes[5].y_support_SE[0, 0] = 3e38
    for i, adapted in enumerate(engine.adapt(episodes)):
        assert_same_bits(engine.adapt([episodes[i]])[0], adapted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_company_changes_no_bit_at_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine = Engine(USUAL, "cpu", support_capacity=33, query_capacity=4)
        episodes = [episode(USUAL, seed, 33, 4) for seed in range(40)]
        for alone, adapted in zip(episodes, engine.adapt(episodes), strict=True):
            assert_same_bits(engine.adapt([alone])[0], adapted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("poison", POISONS)
def test_an_exploding_stream_is_not_finite_and_its_neighbours_do_not_notice(
    poison: float, device: str
) -> None:
    engine = Engine(USUAL, device, support_capacity=16, query_capacity=4)
    healthy = [episode(USUAL, seed, 16, 4) for seed in range(12)]
    expected = engine.adapt(healthy)
    mixed = list(healthy)
    for i, name in ((0, "x_support_SD"), (5, "y_support_SE"), (11, "x_query_QD")):
        array = getattr(healthy[i], name).copy()
        array[2, 3] = poison
        mixed[i] = replace(healthy[i], **{name: array})
    for i, adapted in enumerate(engine.adapt(mixed)):
        if i in (0, 5, 11):
            assert not adapted.finite
        else:
            assert adapted.finite
            assert_same_bits(adapted, expected[i])


@pytest.mark.parametrize("device", DEVICES)
def test_a_pictures_features_do_not_depend_on_the_other_pictures(device: str) -> None:
    engine = Engine(load_meta_init(shipped()), device)
    pictures = list(emoji.sheet("noto")[: 3 * ROWS["cpu"] + 1])
    together = engine.encode("source", pictures)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    for i, picture in enumerate(pictures):
        assert engine.encode("source", [picture])[0].tobytes() == together[i].tobytes()
    for i, features in enumerate(engine.encode("source", pictures[::-1])):
        assert features.tobytes() == together[len(pictures) - 1 - i].tobytes()


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu_to_rounding() -> None:
    episodes = [episode(USUAL, seed, 1 + seed % 16, 4) for seed in range(40)]
    on_cpu, on_gpu = (
        Engine(USUAL, device, support_capacity=16, query_capacity=4).adapt(episodes)
        for device in ("cpu", "cuda")
    )
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        for name, tensor in expected.tensors.items():
            np.testing.assert_allclose(found.tensors[name], tensor, rtol=1e-4, atol=1e-5)
