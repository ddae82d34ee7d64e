"""Links and anchors lead somewhere, on a code host and in the site."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site.hooks import FROM_OUTSIDE, relinked
from tests.documentation.blocks import PAGES, ROOT, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")
LINKED = [*PAGES, ROOT / "BENCHMARKS.md", ROOT / "CHANGELOG.md"]


def anchors(page: Path) -> set[str]:
    """Returns what a page's headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_found_from_the_readme() -> None:
    found: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in found and page.suffix == ".md":
            found.add(page)
            targets = [t.partition("#")[0] for t in LINK.findall(prose(page)) if "://" not in t]
            waiting += [(page.parent / target).resolve() for target in targets if target]
    assert set(PAGES) <= found


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in tmp_path.glob("*.html")}
    assert pages >= {Path(name).stem for name in FROM_OUTSIDE.values()}
    assert "not run:" not in "".join(path.read_text() for path in tmp_path.glob("*.html"))


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("docs/a.md", "[x](model.md#the-gate)", "[x](model.md#the-gate)"),
        ("docs/a.md", "[x](../deploy/RUNBOOK.md#y)", "[x](runbook.md#y)"),
        ("docs/a.md", "[x](../daemon/turn)", "x"),
        ("docs/a.md", "![x](demo.svg)", "![x](demo.svg)"),
        ("deploy/RUNBOOK.md", "[x](../docs/model.md)", "[x](model.md)"),
        ("deploy/RUNBOOK.md", "[x](#y)", "[x](#y)"),
        ("BENCHMARKS.md", "![x](docs/benchmarks.png)", "![x](benchmarks.png)"),
    ],
)
def test_links_follow_their_pages_into_the_site(source: str, link: str, expected: str) -> None:
    assert relinked(link, source) == expected
