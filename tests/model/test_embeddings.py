"""The table of pairs of embeddings: what is paired, and what it is judged beside.

N = pairs of a stream, D = source dim, E = target dim
"""

import numpy as np
import pytest

from model.emoji import judge_embeddings as made
from model.emoji.judge_tables import EmojiTest
from model.emoji.streams import FeatureCache
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.result_table import ResultTable
from model.theta.meta_init_file import load_meta_init, shipped

PICTURES = {"emoji-lowrank": load_meta_init(shipped())}


@pytest.fixture(scope="module")
def table() -> ResultTable:
    return made.judge_embeddings(PICTURES, FeatureCache(), MetaTestPlan((5, 16), 1))


def test_a_row_for_each_kind_whose_encoders_are_there(table: ResultTable) -> None:
    assert table.data_rows is not None
    assert [row.data for row in table.data_rows] == ["picture to picture", "picture to concept"]
    assert [cell.pairs for cell in table.data_rows[0].cells] == [5, 16]
    told = [note for note in table.notes if note.startswith("orthogonal Procrustes")]
    assert len(told) == 2
    assert EmojiTest({}).embeddings().data_rows == ()


def test_what_is_published_is_no_worse_than_ridge(table: ResultTable) -> None:
    for row in table.data_rows or ():
        assert not row.falls_short
        assert row.cells[1].r_at_1["gated"].mean > 0.1  # of 128


def test_pairs_are_unit_vectors_of_the_same_concept() -> None:
    drawn, other = {3: unit(0), 5: unit(1)}, {5: unit(2), 9: unit(3)}
    stream = made.paired_stream("a to b", drawn, other)
    assert stream.labels == ("5",)
    np.testing.assert_array_equal(stream.x_ND[0], drawn[5])
    np.testing.assert_array_equal(stream.y_NE[0], other[5])


def unit(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    vector = np.random.default_rng(seed).standard_normal(4).astype(np.float32)
    return vector / np.linalg.norm(vector)
