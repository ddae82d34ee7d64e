"""The README's table lists exactly the settings there are."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.commands.settings_table import render
from daemon.config import PREFIX, Settings

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_settings_are_those_of_the_code() -> None:
    table = re.search(r"<!-- settings -->\n(.*?)\n?<!-- /settings -->", README.read_text(), re.S)
    assert table, "README.md lacks the markers <!-- settings --> and <!-- /settings -->"
    assert table[1].strip() == render(), (
        "put in the output of: python -m daemon.commands.settings_table"
    )


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
