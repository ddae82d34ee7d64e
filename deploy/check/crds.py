"""Custom resource definitions of the Prometheus Operator and KEDA, from published models of them.

    pip install cloudcoil-models-keda==2.16.1.0 cloudcoil-models-prometheus-operator==0.80.1.0
    python -m deploy.check.crds > deploy/check/crds.json

(in an environment of their own). The packages hold each resource as a pydantic model that was made
from its definition. What is turned back here is the type of every field: a field that is unknown or
of another type is refused as the definition itself would refuse it. Patterns and limits are lost.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

Schema = dict[str, Any]

RESOURCES = {
    "ScaledObject": ("cloudcoil.models.keda.v1alpha1", "keda.sh", "v1alpha1"),
    "PodMonitor": ("cloudcoil.models.prometheus_operator.v1", "monitoring.coreos.com", "v1"),
    "ServiceMonitor": ("cloudcoil.models.prometheus_operator.v1", "monitoring.coreos.com", "v1"),
    "PrometheusRule": ("cloudcoil.models.prometheus_operator.v1", "monitoring.coreos.com", "v1"),
}
"""By kind: the module of its model, its group and its version."""


def structural(shape: Schema, definitions: dict[str, Schema]) -> Schema:
    """Returns a pydantic schema as Kubernetes takes it: without references, nulls and titles."""
    if "$ref" in shape:
        return structural(definitions[shape["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in shape:
        choices = [choice for choice in shape["anyOf"] if choice.get("type") != "null"]
        if {choice.get("type") for choice in choices} == {"integer", "string"}:
            return {"x-kubernetes-int-or-string": True}
        return structural(choices[0], definitions)
    kept: Schema = {"type": shape.get("type", "object")}
    if "enum" in shape:
        kept["enum"] = shape["enum"]
    if "properties" in shape:
        kept["properties"] = {
            name: structural(part, definitions) for name, part in shape["properties"].items()
        }
        kept |= {"required": shape["required"]} if shape.get("required") else {}
    elif isinstance(shape.get("additionalProperties"), dict):
        kept["additionalProperties"] = structural(shape["additionalProperties"], definitions)
    elif kept["type"] == "object":
        kept["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in shape:
        kept["items"] = structural(shape["items"], definitions)
    return kept


def definition(kind: str) -> Schema:
    """Returns the definition of one kind."""
    module, group, version = RESOURCES[kind]
    whole = getattr(import_module(module), kind).model_json_schema(by_alias=True)
    spec = structural(whole["properties"]["spec"], whole["$defs"])
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec}}
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


if __name__ == "__main__":
    items = [definition(kind) for kind in RESOURCES]
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout)
