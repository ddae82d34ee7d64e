"""Which streams judge a candidate: by hashes alone, so that every worker says the same, before and
after a rebalance, and nothing has to be remembered. Pure."""

from __future__ import annotations

import hashlib

from daemon.wire.canary import MOST_SHARE, Canary


def is_held_out(stream: str, seed: int) -> bool:
    """Returns whether the stream is one of the 30 % that no θ may be trained on: the parts
    `validation` and `test` of `model.meta.splits.part_of`, for good."""
    return _place(f"{seed}\n{stream}") < MOST_SHARE


def shadows(canary: Canary, stream: str) -> bool:
    """Returns whether the stream judges this candidate: a share of all streams, of those held out.
    Another candidate has other streams, so that no tenant always bears the cost."""
    if not is_held_out(stream, canary.seed):
        return False
    return _place(f"{canary.content_hash}\n{stream}") < canary.share / MOST_SHARE


def _place(text: str) -> float:
    """Returns a number in [0, 1) that looks drawn at random, and is always the same."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
