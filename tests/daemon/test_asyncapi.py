"""docs/asyncapi.json describes the topics as the code reads and writes them."""

import json
from pathlib import Path

from daemon.wire.asyncapi import asyncapi_document

DOCUMENT = Path(__file__).parents[2] / "docs" / "asyncapi.json"


def test_the_document_is_the_one_that_the_schemas_give() -> None:
    assert json.loads(DOCUMENT.read_text()) == asyncapi_document(), (
        "make it anew: python -m daemon.wire.asyncapi > docs/asyncapi.json"
    )


def test_every_reference_leads_somewhere() -> None:
    whole = asyncapi_document()
    for line in json.dumps(whole, indent=0).splitlines():
        if '"$ref"' in line:
            place = whole
            for step in line.split('"')[3].removeprefix("#/").split("/"):
                place = place[step]
