"""Hooks of mkdocs: pages that lie outside docs/ join the site, and links follow them.

On a code host, pages link to files of the repository. The site has no source code, so there such a
link becomes plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FROM_OUTSIDE = {
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploying.md",
    "deploy/RUNBOOK.md": "runbook.md",
}
"""Pages outside docs/, by their name in the site."""

COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside."""
    for path, name in FROM_OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the page without its comments, with links as the site needs them."""
    inside = {name: path for path, name in FROM_OUTSIDE.items()}
    source = inside.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return relinked(COMMENT.sub("", markdown), source)


def relinked(markdown: str, source: str) -> str:
    """Returns the Markdown of the repository's file `source` with its links as in the site."""

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or "://" in target:
            return match[0]
        path = normpath(join(dirname(source), target))
        if (name := FROM_OUTSIDE.get(path)) is None:
            if not path.startswith("docs/") or not (ROOT / path).is_file():
                return match["text"]
            name = path.removeprefix("docs/")
        return f"{match['bang']}[{match['text']}]({name}{anchor})"

    return LINK.sub(link, markdown)
