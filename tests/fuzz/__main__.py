# ruff: noqa: T201 - what it prints is its result
"""Spoils good inputs at random, and stops at the first that makes a reader raise what it may not.

python -m tests.fuzz 1000000 --seed 5 --reader theta
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz.readers import Reader, readers


def main(words: Sequence[str]) -> int:
    """Reads as many inputs as asked for, in turns of all readers, and prints how many there were.
    Returns 1 after the first that escaped, having printed it."""
    arguments = _arguments(words)
    start, read = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [r for r in readers(Path(folder)) if arguments.reader in (None, r.name)]
        for reader in chosen:
            for number in range(arguments.inputs // len(chosen)):
                if not holds(reader, f"{arguments.seed} {reader.name} {number}"):
                    return 1
                read += 1
            print(f"{reader.name}: {time.monotonic() - start:.0f} s", flush=True)
    seconds = time.monotonic() - start
    print(f"{read} inputs over {len(chosen)} readers in {seconds:.0f} s: none escaped")
    return 0


def holds(reader: Reader, seed: str) -> bool:
    """Returns whether the reader bears the input of this seed; prints the input if not."""
    data = reader.spoilt(Random(seed))
    try:
        reader.read(data)
    except reader.error:
        pass
    except BaseException as e:
        print(f"{reader.name}, seed {seed!r}: {type(e).__name__}: {e!s:.300}\n{data[:2_000]!r}")
        return False
    return True


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("inputs", type=int, help="how many inputs, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="only this one")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
