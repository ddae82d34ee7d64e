"""Models of custom resources become definitions that Kubernetes takes, with every type kept."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel

from deploy.check.control_plane import CRDS
from deploy.check.crds import RESOURCES, structural


class Part(BaseModel):
    """A part of a resource."""

    port: int | str
    labels: dict[str, str] | None = None


class Spec(BaseModel):
    """A resource's spec."""

    replicas: int
    kind: Literal["a", "b"] | None = None
    parts: list[Part] | None = None
    raw: dict[str, object] | None = None


def test_every_type_is_kept_and_nulls_and_references_are_not() -> None:
    whole = Spec.model_json_schema()
    assert structural(whole, whole["$defs"]) == {
        "type": "object",
        "required": ["replicas"],
        "properties": {
            "replicas": {"type": "integer"},
            "kind": {"type": "string", "enum": ["a", "b"]},
            "parts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["port"],
                    "properties": {
                        "port": {"x-kubernetes-int-or-string": True},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                },
            },
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }


def test_the_definitions_are_of_every_resource_that_the_chart_makes() -> None:
    items = json.loads(CRDS.read_text())["items"]
    assert {item["spec"]["names"]["kind"] for item in items} == set(RESOURCES)
