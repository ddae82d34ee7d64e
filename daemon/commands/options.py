"""Options that several commands of `adaptd` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file of settings; the environment wins over it."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
