"""`python -m benchmarks subscriber`: what it publishes is what the SDK serves."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

from benchmarks.subscriber.plan import Publications, PublishedForm, SubscriberPlan, theta_of
from daemon.client.newest import NewestMappings, Swapped
from daemon.client.served import parse_served_theta
from model.theta.meta_init_file import meta_init_to_bytes


@dataclass(frozen=True)
class Record:
    key: bytes
    value: bytes
    offset: int = 0


@pytest.mark.parametrize("form", SubscriberPlan().forms, ids=lambda form: form.name)
def test_its_records_are_mappings_that_say_when_they_were_published(form: PublishedForm) -> None:
    theta = parse_served_theta(meta_init_to_bytes(theta_of(form)), "theta")
    newest, publications = NewestMappings(thetas=[theta]), Publications(form, pairs=16)
    for version in range(3):
        now_ns = time.time_ns()
        result = newest.take(Record(b"s", publications.value("s", version, now_ns)))
        assert isinstance(result, Swapped), result
        assert result.mapping is not None
        facts = result.mapping.facts
        assert (facts.version, int(facts.turn)) == (version, now_ns)
        assert result.mapping(np.ones(form.source_dim)).shape == (form.target_dim,)
