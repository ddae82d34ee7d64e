"""Episodes from recorded streams: disjoint, within bounds, by seed, and split for good.

B = streams in batch, N = pairs of a stream, S = support pairs, Q = query pairs, D = source dim,
E = target dim
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.meta.episodes import EpisodeSizes, can_be_cut, cut_episode
from model.meta.recorded_streams import RecordedEpisodes, RecordedStream
from model.meta.splits import Fractions, Part, part_of, select
from model.values.errors import BadData

SIZES = EpisodeSizes(min_support=2, max_support=8, query=4)


def recorded(name: str, pairs: int, labels: Sequence[str] | None = None) -> RecordedStream:
    """Features say which stream and pair they are of, so that episodes can be read."""
    number = float(sum(name.encode()))
    x_ND = np.stack([np.full(pairs, number), np.arange(pairs, dtype=float)], 1).astype(np.float32)
    return RecordedStream(
        name, x_ND, 2.0 * x_ND, np.arange(pairs), None if labels is None else tuple(labels)
    )


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=200, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=0, max_size=40),
    labelled=st.booleans(),
    temporal=st.booleans(),
    min_support=st.integers(1, 5),
    more=st.integers(0, 10),
    query=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_every_cut_is_disjoint_within_bounds_and_refused_only_when_impossible(
    labels: list[int],
    labelled: bool,
    temporal: bool,
    min_support: int,
    more: int,
    query: int,
    seed: int,
) -> None:
    cut = EpisodeSizes(min_support, min_support + more, query, temporal)
    label_N = np.array(labels, np.int64) if labelled else None
    if not can_be_cut(len(labels), label_N, cut):
        assert not _some_cut_exists(labels if labelled else None, len(labels), cut)
        return
    support, asked = cut_episode(len(labels), label_N, cut, np.random.default_rng(seed))
    assert cut.min_support <= len(support) <= cut.max_support
    assert 1 <= len(asked) <= cut.query
    assert len(set(support) | set(asked)) == len(support) + len(asked)
    if labelled:
        assert not {labels[i] for i in support} & {labels[i] for i in asked}
    if temporal:
        assert max(support) < min(asked)


def _some_cut_exists(labels: list[int] | None, pairs: int, cut: EpisodeSizes) -> bool:
    """By the definition: one query pair (and its label) apart leaves enough for a support."""
    if labels is None:
        return pairs > cut.min_support
    if cut.temporal:  # weaker: of all-different labels, some cut always exists
        return pairs > cut.min_support and len(set(labels)) == pairs
    return any(sum(other != label for other in labels) >= cut.min_support for label in labels)


def test_support_sizes_are_log_uniform() -> None:
    cut = EpisodeSizes(min_support=2, max_support=31, query=4)
    rng = np.random.default_rng(0)
    sizes = [len(cut_episode(200, None, cut, rng)[0]) for _ in range(8_000)]
    shares = np.histogram(sizes, [2, 4, 8, 16, 32])[0] / len(sizes)
    np.testing.assert_allclose(shares, 0.25, atol=0.02)  # each doubling as likely as the next


def test_a_batch_holds_the_streams_own_pairs_and_zeros_as_padding() -> None:
    streams = [recorded("a", 30), recorded("b", 5), recorded("c", 12)]
    batch = RecordedEpisodes(streams, SIZES).draw(seeded(0), 3)
    assert batch.x_support_BSD.shape == (3, 8, 2)
    assert batch.y_query_BQE.shape == (3, 4, 2)
    seen = set()
    for row in range(3):
        support = batch.x_support_BSD[row][batch.real_support_BS[row]]
        query = batch.x_query_BQD[row][batch.real_query_BQ[row]]
        assert len({float(v) for v in torch.cat([support, query])[:, 0]}) == 1
        assert not set(support[:, 1].tolist()) & set(query[:, 1].tolist())
        seen.add(float(support[0, 0]))
        torch.testing.assert_close(batch.y_support_BSE[row], 2.0 * batch.x_support_BSD[row])
        assert not batch.x_support_BSD[row][~batch.real_support_BS[row]].any()
    assert len(seen) == 3


def test_the_same_generator_state_gives_the_same_batch() -> None:
    source = RecordedEpisodes([recorded("a", 30), recorded("b", 20)], SIZES)
    one, two, other = (source.draw(seeded(s), 5) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.x_support_BSD, other.x_support_BSD)


def test_a_temporal_query_is_the_newest_of_its_moment() -> None:
    shuffled = recorded("a", 40)
    order = np.random.default_rng(0).permutation(40)
    stream = RecordedStream(
        "a", shuffled.x_ND[order], shuffled.y_NE[order], shuffled.times_N[order]
    )
    source = RecordedEpisodes([stream], EpisodeSizes(2, 8, 4, temporal=True))
    ends = set()
    for seed in range(40):
        batch = source.draw(seeded(seed), 1)
        support = batch.x_support_BSD[0, :, 1][batch.real_support_BS[0]].tolist()
        query = batch.x_query_BQD[0, :, 1][batch.real_query_BQ[0]].tolist()
        assert support + query == list(range(int(support[0]), int(query[-1]) + 1))
        ends.add(query[-1])
    assert len(ends) > 10


def test_parts_depend_on_the_name_and_the_seed_alone_and_have_their_share() -> None:
    fractions = Fractions(validation=0.2, test=0.3)
    parts = [part_of(f"stream-{i}", 0, fractions) for i in range(4_000)]
    expected: list[tuple[Part, float]] = [("train", 0.5), ("validation", 0.2), ("test", 0.3)]
    for part, share in expected:
        assert parts.count(part) / len(parts) == pytest.approx(share, abs=0.03)
    assert parts != [part_of(f"stream-{i}", 1, fractions) for i in range(4_000)]
    with pytest.raises(ValueError, match="fit into 1"):
        Fractions(validation=0.6, test=0.6)


def test_selections_share_neither_stream_nor_label() -> None:
    names = [f"label-{i}" for i in range(40)]
    streams = [recorded(f"stream-{i}", 40, names) for i in range(40)]
    train = select(streams, 0, {"train"}, {"train"})
    test = select(streams, 0, {"test"}, {"test"})
    assert not {s.name for s in train} & {s.name for s in test}
    assert not {n for s in train for n in s.labels or ()} & {
        n for s in test for n in s.labels or ()
    }
    for stream in train:
        kept = [names.index(n) for n in stream.labels or ()]
        np.testing.assert_array_equal(stream.x_ND[:, 1], kept)
    assert len(select(streams, 0, {"train", "validation", "test"})) == 40


def test_what_cannot_be_used_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(BadData, match="longest has 2 pairs, an episode needs 2 for the support"):
        RecordedEpisodes([recorded("a", 2), recorded("b", 1)], SIZES)
    with pytest.raises(BadData, match="no streams"):
        RecordedEpisodes([], SIZES)
    with pytest.raises(BadData, match="of another label"):
        RecordedEpisodes([recorded("a", 9, ["same"] * 9)], SIZES)
    with pytest.raises(BadData, match="none of the 1 streams falls into test"):
        select([recorded("a", 9)], 0, {"test"}, fractions=Fractions(0.0, 0.0))
    broken = recorded("b", 9)
    broken.x_ND[3, 0] = np.nan
    with pytest.raises(BadData, match="'b': source features hold NaN"):
        RecordedEpisodes([recorded("a", 9), broken], SIZES)
    x_ND, y_NE = np.zeros((9, 3), np.float32), np.zeros((9, 2), np.float32)
    narrow = RecordedStream("n", x_ND, y_NE, np.arange(9))
    with pytest.raises(BadData, match="'n': source features are"):
        RecordedEpisodes([recorded("a", 9), narrow], SIZES)
    with pytest.raises(ValueError, match="do not fit together"):
        EpisodeSizes(min_support=5, max_support=4)


def test_streams_too_short_are_left_out_by_name_and_the_hash_knows_the_data() -> None:
    source = RecordedEpisodes([recorded("long", 30), recorded("short", 2)], SIZES)
    assert source.left_out == ("short",)
    assert source.names == ("long",)
    assert (source.source_dim, source.target_dim) == (2, 2)
    again = RecordedEpisodes([recorded("long", 30)], SIZES)
    assert source.content_hash == again.content_hash
    longer = RecordedEpisodes([recorded("long", 31)], SIZES)
    assert source.content_hash != longer.content_hash


def test_labels_that_differ_in_a_null_character_are_different() -> None:
    stream = recorded("a", 4, ["a", "a\0", "a\0", "a"])
    sizes = EpisodeSizes(2, 2, 2)
    assert RecordedEpisodes([stream], sizes).names == ("a",)
