"""What is published of streams that slide over a change, with the watch that the daemon has.

D = source dim, E = target dim, N = pairs of a stream
"""

import numpy as np

from model.emoji.moving_streams import SUPPORT_PAIRS, SlidingEpisodes, jump, sliding_episodes
from model.evaluate.episodes import GATE_PAIRS
from model.evaluate.methods import gated
from model.evaluate.scoring import recalls_at_1
from model.evaluate.watched import watched
from model.meta.fresh import fresh_theta_of_kind
from model.meta.recorded_streams import RecordedStream
from model.serving.engine import Engine

D, E = 12, 6


def engine() -> Engine:
    theta = fresh_theta_of_kind((D, 16, E), learner="maml", steps=1)
    return Engine(theta, "cpu", support_capacity=SUPPORT_PAIRS, query_capacity=GATE_PAIRS)


def stream(seed: int) -> RecordedStream:
    """Targets follow from sources by a linear map of the stream's own, with noise."""
    rng = np.random.default_rng(seed)
    x_ND = np.random.default_rng(0).standard_normal((360, D))
    y_NE = x_ND @ rng.standard_normal((D, E)) + 0.3 * rng.standard_normal((360, E))
    times_N = np.zeros(360, np.int64)
    return RecordedStream(f"s{seed}", x_ND.astype(np.float32), y_NE.astype(np.float32), times_N)


def slid(changes: bool, count: int = 6) -> list[SlidingEpisodes]:
    streams = [stream(seed) for seed in range(count)]
    rng = np.random.default_rng(1)
    return [
        sliding_episodes(
            own, jump(own.y_NE, (other if changes else own).y_NE, rng), rng, every=2, queries=64
        )
        for own, other in zip(streams, [*streams[1:], streams[0]], strict=True)
    ]


def test_a_stream_that_jumps_is_won_back_before_the_old_pairs_have_left_the_window() -> None:
    served, found = engine(), slid(changes=True)
    episodes = [episode for each in found for episode in each.after]
    run = watched(served, [each.before for each in found], every=2)
    ours = np.array(recalls_at_1(run, episodes)).reshape(len(found), -1)
    plain = np.array(recalls_at_1(gated(served), episodes)).reshape(len(found), -1)
    assert ours[:, 8:16].mean() > plain[:, 8:16].mean() + 0.1  # pairs 16 to 32 after the jump
    np.testing.assert_array_equal(ours[:, -1], plain[:, -1])  # both windows are full of new pairs


def test_a_stream_that_does_not_change_is_published_as_without_the_watch() -> None:
    served, found = engine(), slid(changes=False)
    episodes = [episode for each in found for episode in each.after]
    run = watched(served, [each.before for each in found], every=2)
    assert recalls_at_1(run, episodes) == recalls_at_1(gated(served), episodes)


def test_without_episodes_there_are_no_outputs() -> None:
    assert watched(engine(), [], every=2)([]) == []
