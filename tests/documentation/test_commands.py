"""Commands, settings, metrics and files that the documentation names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from prometheus_client import Metric

from daemon.__main__ import app
from daemon.client.newest import PassedOver
from daemon.client.subscriber import MappingSubscriber, ServedBy
from daemon.wire import adapted_mapping
from daemon.wire.paired_event import PairedEvent
from deploy.prometheus.promql import ONLY_IN_A_CONTAINER
from tests.deploy.scrapes import metrics_after
from tests.documentation.blocks import (
    PAGES,
    REASONS,
    ROOT,
    Block,
    blocks,
    commands,
    lines_of,
    prose,
    spans,
)
from tests.documentation.checks import CHECKS, SETTINGS, check, found

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
METRIC = re.compile(r"\badaptd_[a-z_]+")


def where(block: Block) -> str:
    return block.where


def test_every_block_has_a_language_that_is_run_or_parsed() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python", "json"}


@EACH_PAGE
def test_no_command_hides_in_an_indented_block(page: Path) -> None:
    first = {words[0] for words in CHECKS}
    for line in re.findall(r"\n\n {4}(?! *[-*\d])(\S.*)", prose(page)):
        assert line.split()[0] not in first, f"fence it, so that it is run: {line}"


@pytest.mark.parametrize("block", SHELL, ids=where)
def test_every_command_of_a_block_can_be_parsed(block: Block) -> None:
    for line in lines_of(block.text):
        for words in commands(line):
            check(words)


@pytest.mark.parametrize("block", [b for b in SHELL if b.reason], ids=where)
def test_what_is_not_run_has_one_of_the_reasons(block: Block) -> None:
    assert block.reason in REASONS
    assert block.lines_left_out
    for line in block.lines_left_out:
        for words in commands(line):
            assert shlex.join(words).startswith(REASONS[block.reason]), f"{line} can be run"


def test_what_is_run_in_the_readme_is_run_there() -> None:
    there = [line.split("#")[0].strip() for b in SHELL if b.page == "README.md" for line in b.lines]
    assert set(REASONS["is run in README.md"]) <= set(there)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=where)
def test_every_event_in_json_is_one(block: Block) -> None:
    assert msgspec.json.decode(block.text, type=PairedEvent).pairs


@EACH_PAGE
def test_every_command_in_the_text_exists(page: Path) -> None:
    for span in spans(page):
        words = span.split()
        if words[0] == "adaptd" and len(words) > 1:
            command, _ = found(app, words[1:]) if words[1] != "meta-init" or words[2:] else (app, 0)
            options = {option for p in getattr(command, "params", ()) for option in p.opts}
            assert {word for word in words if word.startswith("--")} <= options, span
        elif words[0] in ("make", "kubectl") or words[:2] == ["python", "-m"]:
            check(shlex.split(span, comments=True))
        elif words[:2] == ["pip", "install"]:
            check(shlex.split(span))


@EACH_PAGE
def test_every_setting_in_the_text_exists(page: Path) -> None:
    assert set(re.findall(r"\bADAPTD_[A-Z_]+\b", page.read_text())) <= SETTINGS


@EACH_PAGE
def test_every_metric_in_the_text_exists(page: Path) -> None:
    metrics = metrics_after(1)
    metrics.watch_gpu(lambda: 1.0, 2)
    families = [*metrics.registry.collect(), *subscriber_metrics()]
    known = {f.name for f in families} | {s.name for f in families for s in f.samples}
    known |= {f"{family.name}_total" for family in families if family.type == "counter"}
    known |= ONLY_IN_A_CONTAINER
    assert {name for span in spans(page) for name in METRIC.findall(span)} <= known


def subscriber_metrics() -> list[Metric]:
    return list(MappingSubscriber("kafka:9092").metrics.registry.collect())


def test_the_sdks_page_lists_its_metrics_and_reasons() -> None:
    named = spans(ROOT / "docs" / "sdk.md")
    families = {f"{f.name}{'_total' * (f.type == 'counter')}" for f in subscriber_metrics()}
    assert families <= named
    assert set(get_args(PassedOver)) | set(get_args(ServedBy)) <= named


@EACH_PAGE
def test_every_file_in_the_text_exists(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(r"(daemon|model|tests|deploy|benchmarks|docs|examples)/[\w/.-]+", span):
            assert (ROOT / span).exists() or (ROOT / "deploy" / span).exists(), span


def test_every_fact_of_a_mapping_is_explained() -> None:
    named = spans(ROOT / "docs" / "wire-formats.md")
    assert set(adapted_mapping.Facts.__struct_fields__) <= named
