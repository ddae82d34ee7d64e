"""A mapping is applied as it was meant, to arrays of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.client import conformance
from daemon.client.newest import NewestMappings
from daemon.client.served import ServedMapping, ServedTheta, theta_from_bytes, theta_to_bytes
from daemon.wire.adapted_mapping import encode_mapping
from tests.client.conftest import THETA, Make

X_RD = conformance.numbers(5, 7, conformance.D)


@pytest.fixture(scope="module")
def mapping(whole_record: Make) -> ServedMapping:
    newest = NewestMappings()
    newest.take(whole_record())
    found = newest.get("s")
    assert found is not None
    return found


def test_a_row_alone_gives_what_it_gives_among_others(mapping: ServedMapping) -> None:
    y_RE = mapping(X_RD)
    assert y_RE.shape == (7, conformance.E)
    np.testing.assert_allclose(mapping(X_RD[3]), y_RE[3], rtol=1e-5, atol=1e-6)


def test_arrays_of_torch_and_lists_are_taken(mapping: ServedMapping) -> None:
    import torch

    expected = mapping(X_RD)
    tensor = torch.tensor(X_RD, requires_grad=True)
    for x in (tensor, tensor.detach().double(), X_RD.astype(np.float64), X_RD.tolist()):
        np.testing.assert_array_equal(mapping(x), expected)
    half = mapping(tensor.detach().bfloat16())
    np.testing.assert_allclose(half, expected, atol=0.1)


def test_arrays_of_jax_are_taken(mapping: ServedMapping) -> None:
    jax = pytest.importorskip("jax")
    np.testing.assert_array_equal(mapping(jax.numpy.asarray(X_RD)), mapping(X_RD))


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 6), (6, 1)], ids=str)
def test_another_shape_is_refused_and_told(mapping: ServedMapping, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(6,\) or \(rows, 6\)"):
        mapping(np.ones(shape, np.float32))


def test_no_rows_give_no_rows(mapping: ServedMapping) -> None:
    assert mapping(np.ones((0, 6))).shape == (0, 4)


def test_what_is_kept_is_what_was_published(
    whole_record: Make, factored_record: Make, theta: ServedTheta
) -> None:
    for record in (whole_record(), factored_record()):
        newest = NewestMappings(thetas=[theta])
        newest.take(record)
        (kept,) = newest.kept()
        assert encode_mapping(kept)[0] == record.value


def test_a_factored_mapping_takes_less_memory_as_it_is(
    factored_record: Make, theta: ServedTheta
) -> None:
    held = []
    for keeps in (True, False):
        newest = NewestMappings(thetas=[theta], keeps=keeps)
        newest.take(factored_record())
        mapping = newest.get("s")
        assert mapping is not None
        before = mapping.nbytes
        mapping(X_RD)
        held.append(mapping.nbytes)
    whole_bytes = 4 * sum(t.size for t in THETA.mapping.values())
    assert held == [before + whole_bytes, before]


def test_a_theta_comes_back_from_a_snapshots_bytes(theta: ServedTheta) -> None:
    again = theta_from_bytes(theta_to_bytes(theta))
    assert (again.version, again.content_hash) == (theta.version, theta.content_hash)
    assert again.serves_unknown == theta.serves_unknown
    np.testing.assert_array_equal(again(X_RD), theta(X_RD))
    np.testing.assert_allclose(
        theta(X_RD), conformance.expected(THETA.mapping, X_RD, "gelu", "none"), atol=1e-5
    )
