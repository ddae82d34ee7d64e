"""The check for a lent GPU, as far as it can be run without one: it starts with few packages, finds
the tests, and says what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import gpu_check

ROOT = Path(__file__).parents[2]

FEW = """
import sys
class Missing:
    few = {'torch', 'functorch', 'torchgen', 'triton', 'numpy', 'safetensors', 'PIL', 'pytest',
           'py', 'msgspec', 'model', 'benchmarks', 'tests'}
    few |= {  # what those need
        'pluggy', 'iniconfig', 'packaging', 'pygments', 'sympy', 'mpmath', 'networkx', 'jinja2',
        'markupsafe', 'fsspec', 'filelock', 'typing_extensions', 'setuptools', 'nvidia'}
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top not in self.few | sys.stdlib_module_names and not top.startswith('_'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
"""


def with_few_packages(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FEW + code], capture_output=True, text=True, timeout=120, check=False
    )


def test_it_starts_with_few_packages_and_says_that_there_is_no_device() -> None:
    done = with_few_packages(
        "from benchmarks import gpu_check\n"
        "gpu_check.torch.cuda.is_available = lambda: False\n"
        "sys.exit(gpu_check.main())"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gpu-check: no CUDA device here\n"


def test_every_test_for_a_gpu_is_found_with_few_packages() -> None:
    done = with_few_packages(
        "import os, pytest\n"
        "os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'\n"
        f"sys.exit(pytest.main(['--noconftest', '-m', 'gpu', '-q', '--co', *{gpu_check.TESTS}]))"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert {line.partition("::")[0] for line in found} == set(gpu_check.TESTS)
    assert len(found) > 30


def test_no_file_of_tests_for_a_gpu_is_forgotten() -> None:
    marked = {
        f"tests/model/{path.name}"
        for path in (ROOT / "tests" / "model").glob("test_*.py")
        if "mark.gpu" in path.read_text()
    }
    assert marked == set(gpu_check.TESTS)


def test_without_a_device_its_tests_fail_and_are_not_skipped() -> None:
    found = gpu_check.run_tests("-k", "other_supports or diverged_stream_is_alone")
    if torch.cuda.is_available():
        assert found == {"passed": 2, "failed": 0}
    else:
        assert found == {"passed": 0, "failed": 2}


def test_skipped_tests_count_as_failed() -> None:
    junit = '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>'
    assert gpu_check.count_tests(junit) == {"passed": 3, "failed": 6}


def test_figures_are_streams_per_second_of_our_inner_loops() -> None:
    entries = {"hidden": {"streams_per_s": {"median": 5.0}}, "full": {"refused": "no memory"}}
    case = {"what": "adapt", "streams": 3, "dim": 4, "entries": entries}
    assert gpu_check.streams_per_s({"cases": [case]}) == {"adapt B=3 d=4": {"hidden": 5.0}}
