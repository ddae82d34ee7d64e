"""One public name, one meaning: no public class or function is defined in two files."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "daemon", "model")
ALLOWED = {
    "main": "where a process starts; nothing imports it",
}
"""Names defined more than once, each with the reason why no reader is misled."""
PENDING = set(
    """
    Aside Block CannotTakePart Cut Engine Factors Found InnerLoop Judged NoFigures Outer Pairs
    Parts Pass Plan Published Ready Result Room Row Scenario Schedule Shape State Trained
    Wanted Worker activate adapt apply apply_batched as_table backward bench check choose
    closed_forms command connection cpu_model decode delete descend descended difference
    document draw encode evaluate examples_of expand figures finite fit fitted full gradients
    hidden_features latency load loss_of machine mappings measure measured meta_train moved
    multiplied_out named names ours page publish quantile query_outputs read record rollback
    run scores share spread step summary support_of train trained translated whole write
    """.split()  # noqa: SIM905 - shorter than a line for each name
)
"""Names still to be made unique."""


def definitions() -> dict[str, list[str]]:
    """Returns the files that define each public top-level class or function, by its name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in (each for package in PACKAGES for each in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_public_name_is_defined_twice() -> None:
    twice = {name: files for name, files in definitions().items() if len(files) > 1}
    assert not {n: files for n, files in twice.items() if n not in PENDING.union(ALLOWED)}


def test_every_allowed_name_is_still_defined_twice() -> None:
    found = definitions()
    assert all(len(found.get(name, ())) > 1 for name in ALLOWED)
