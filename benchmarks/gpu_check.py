"""`python -m benchmarks.gpu_check` (`make gpu-check`): what needs a CUDA device, in one go, for a
machine that has one for a short time.

It runs the model's tests marked `gpu`, then `python -m benchmarks adapt` on CUDA with larger
batches beside the usual ones, and prints one line of JSON on stdout. It needs torch, numpy,
safetensors, msgspec, pillow and pytest, and nothing else to be installed. The exit code is 1
without a device, when a test fails, and when one of our inner loops computes something wrong.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import torch

from benchmarks.inner.adapt import BENCHMARK, GRID, AdaptPlan, Case, wrong_results
from benchmarks.inner.contender import OURS
from benchmarks.output import Report, to_stderr

TESTS = tuple(
    f"tests/model/test_{name}.py" for name in ("engine_bits", "hidden_captured", "hidden_triton")
)
"""The model's files with tests marked `gpu`; that of the benchmarks needs more to be installed."""
TESTS_WITHIN_S = 300
LARGER = tuple(Case("adapt", b, d) for d in (128, 512) for b in (8_192, 32_768))
PLAN = replace(AdaptPlan(), device="cuda", cases=(*GRID, *LARGER), names=tuple(OURS), turns=2)


def main() -> int:
    """Runs everything and prints it. Returns the exit code."""
    if not torch.cuda.is_available():
        to_stderr("gpu-check: no CUDA device here")
        return 1
    began = time.monotonic()
    tests = run_tests()
    figures = BENCHMARK.run(PLAN, to_stderr)
    wrong = wrong_results(figures)
    found = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "tests": tests,
        "wrong": wrong,
        "streams_per_s": streams_per_s(figures),
        "seconds": round(time.monotonic() - began, 1),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if not wrong and tests["passed"] and not tests["failed"] else 1


def run_tests(*arguments: str) -> dict[str, int]:
    """Runs the tests in TESTS that are marked `gpu`, with more arguments of pytest's. Returns how
    many passed and failed; one that is skipped has failed. The usual fixtures start Kafka and
    Redis, and stay out."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--noconftest",
            "-m",
            "gpu",
            "-q",
            *TESTS,
            *arguments,
        ]
        subprocess.run(
            [*command, f"--junitxml={results}"],
            stdout=sys.stderr,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=TESTS_WITHIN_S,
            check=False,
        )
        return count_tests(results.read_text()) if results.exists() else {"passed": 0, "failed": 1}


def count_tests(junit: str) -> dict[str, int]:
    """Returns how many tests of a JUnit file passed and failed."""
    suites = ElementTree.fromstring(junit).iter("testsuite")
    passed = failed = 0
    for suite in suites:
        bad = sum(int(suite.get(name, 0)) for name in ("failures", "errors", "skipped"))
        failed, passed = failed + bad, passed + int(suite.get("tests", 0)) - bad
    return {"passed": passed, "failed": failed}


def streams_per_s(figures: Report) -> Report:
    """Returns the median streams per second of each of our inner loops, by case."""
    return {
        f"{case['what']} B={case['streams']} d={case['dim']}": {
            name: entry["streams_per_s"]["median"]
            for name, entry in case["entries"].items()
            if "streams_per_s" in entry
        }
        for case in figures["cases"]
    }


if __name__ == "__main__":
    raise SystemExit(main())
