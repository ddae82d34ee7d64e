"""Whatever company a stream is adapted in, its bits are its own: batches drawn at random."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model.serving.engine import Engine
from tests.model.bits_lab import ODD, POISONS, assert_same_bits, episode


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_mixture_of_lengths_and_poison_leaves_each_stream_its_own(data: st.DataObject) -> None:
    engine = Engine(ODD, "cpu", chunk=5, support_capacity=6, query_capacity=2)
    lengths = st.tuples(st.integers(0, 6), st.integers(0, 2))
    episodes = []
    for seed, (support, query) in enumerate(data.draw(st.lists(lengths, max_size=12))):
        plain = episode(ODD, seed, support, query)
        if support and data.draw(st.booleans()):
            plain.x_support_SD[0, 0] = data.draw(st.sampled_from(POISONS))
        episodes.append(plain)
    for alone, adapted in zip(episodes, engine.adapt(episodes), strict=True):
        assert_same_bits(engine.adapt([alone])[0], adapted)
