"""Schemas of the Prometheus Operator's custom resources, as strict as can be.

From the CRDs of prometheus-operator 0.91 (monitoring.coreos.com/v1), cut down to the fields that
deploy/ uses: a field that is not here is refused, so add it here after a look at the CRD.
"""

from __future__ import annotations

from typing import Any

DURATION = {
    "type": "string",
    "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?"
    r"(([0-9]+)ms)?)$",
}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}


def only(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A whole manifest."""
    return only(
        {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": kind},
            "metadata": only({"name": {"type": "string"}, "labels": TEXTS}, ["name"]),
            "spec": spec,
        },
        ["apiVersion", "kind", "metadata", "spec"],
    )


RECORD = only({"record": {"type": "string"}, "expr": {"type": "string"}}, ["record", "expr"])
ALERT = only(
    {
        "alert": {"type": "string"},
        "expr": {"type": "string"},
        "for": DURATION,
        "labels": TEXTS,
        "annotations": TEXTS,
    },
    ["alert", "expr"],
)
GROUP = only(
    {
        "name": {"type": "string", "minLength": 1},
        "rules": {"type": "array", "items": {"oneOf": [RECORD, ALERT]}},
    },
    ["name"],
)
ENDPOINT = only(
    {
        "port": {"type": "string"},
        "path": {"type": "string"},
        "interval": DURATION,
        "scrapeTimeout": DURATION,
    },
    [],
)

SCHEMAS = {
    "PrometheusRule": resource(
        "PrometheusRule", only({"groups": {"type": "array", "items": GROUP}}, [])
    ),
    "PodMonitor": resource(
        "PodMonitor",
        only(
            {
                "selector": only({"matchLabels": TEXTS}, []),
                "jobLabel": {"type": "string"},
                "podMetricsEndpoints": {"type": "array", "items": ENDPOINT},
            },
            ["selector"],
        ),
    ),
}
