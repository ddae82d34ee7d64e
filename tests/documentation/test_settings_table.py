"""The table in docs/settings.md lists exactly the settings there are, that in docs/operating.md the
rights in Redis."""

from __future__ import annotations

import re

from daemon.adapters.redis.windows import COMMANDS
from daemon.config import PREFIX, Settings
from docs.site.settings_table import PAGE, inserted, render


def test_the_pages_settings_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert render() in page, "run python -m docs.site.settings_table"
    assert inserted(page) == page


def test_the_table_has_a_row_for_every_setting_with_its_default_and_why() -> None:
    rows = [row for row in render().splitlines() if row.startswith(f"| `{PREFIX}")]
    assert len(rows) == len(Settings.model_fields)
    for row, (name, field) in zip(rows, Settings.model_fields.items(), strict=True):
        variable, allowed, default, why = (
            cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]
        )
        assert variable == f"`{PREFIX}{name.upper()}`"
        assert allowed
        assert (default == "unset") == (field.default is None)
        assert why.endswith(".")


def test_the_table_shows_ranges_choices_and_defaults() -> None:
    table = render()
    assert "| `ADAPTD_MAX_BATCH` | 1 to 65536 | `256` |" in table
    assert "| `ADAPTD_REBUILD_WINDOWS` | true, false | `true` |" in table
    assert "| `ADAPTD_KAFKA_OFFSET_RESET` | earliest, latest | `earliest` |" in table
    assert "| `ADAPTD_KAFKA_SASL_PASSWORD` | secret | unset |" in table


def test_the_page_on_operating_lists_every_redis_command_that_a_worker_needs() -> None:
    page = (PAGE.parent / "operating.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| Redis | `~<prefix>:*`"))
    listed = row.partition("the commands ")[2].rstrip(" |").split(", ")
    assert listed == [command.replace("|", " ").upper() for command in COMMANDS]
