"""Makes chart/values.schema.json: types from the defaults, limits from here, settings' own from the
daemon.

A value that values.yaml does not have is refused everywhere except where Kubernetes has the last
word (OPEN).
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from daemon.config import Settings
from deploy.helm.render import CHART

Schema = dict[str, Any]

QUANTITY: Schema = {
    "type": ["string", "number"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h))+$"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
NAME: Schema = {"type": "string", "pattern": r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"}
ANY: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": {"type": "object"}}
NAMED: Schema = {"type": "array", "items": {"type": "object", "required": ["name"]}}
QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": QUANTITY | {"type": ["string", "number", "null"]},
}
RESOURCES: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": QUANTITIES, "limits": QUANTITIES, "claims": LIST},
}
PROFILE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["tagSuffix", "device", "resources", "tolerations"],
    "properties": {
        "tagSuffix": {"type": "string"},
        "device": {"type": "string", "pattern": r"^(auto|cpu|cuda(:\d+)?)$"},
        "resources": RESOURCES,
        "tolerations": LIST,
    },
}
PORTS: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["port"],
        "properties": {
            "port": {"type": ["integer", "string"], "minimum": 1, "maximum": 65535},
            "endPort": {"type": "integer", "minimum": 1, "maximum": 65535},
            "protocol": {"enum": ["TCP", "UDP", "SCTP"]},
        },
    },
}


def whole(minimum: int, maximum: int | None = None) -> Schema:
    """Returns the schema of an integer within these limits."""
    limits = {"minimum": minimum} | ({} if maximum is None else {"maximum": maximum})
    return {"type": "integer", **limits}


LIMITS: dict[str, Schema] = {
    "profile": {"enum": ["cpu", "cuda"]},
    "profiles": {"type": "object", "additionalProperties": PROFILE, "required": ["cpu", "cuda"]},
    "secret.name": NAME,
    "tls.kafka.secret": NAME,
    "tls.redis.secret": NAME,
    "image.repository": {"type": "string", "minLength": 1},
    "image.tag": {"type": "string", "pattern": r"^[\w.-]{0,128}$"},
    "image.digest": {"type": "string", "pattern": r"^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecrets": NAMED,
    "replicas": whole(0, 10_000),
    "terminationGracePeriodSeconds": whole(1, 7_200),
    "revisionHistoryLimit": whole(0),
    "progressDeadlineSeconds": whole(1),
    "resources": RESOURCES,
    "topics.resources": RESOURCES,
    "tmpSizeLimit": QUANTITY,
    "spill.kind": {"enum": ["emptyDir", "claim"]},
    "spill.size": QUANTITY,
    "serviceAccount.name": NAME,
    "serviceAccount.annotations": TEXTS,
    "podSecurityContext": ANY,
    "securityContext": ANY,
    "podAnnotations": TEXTS,
    "podLabels": TEXTS,
    "nodeSelector": TEXTS,
    "tolerations": LIST,
    "affinity": ANY,
    "spreadOver": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "extraEnv": NAMED,
    "extraEnvFrom": LIST,
    "extraVolumes": NAMED,
    "extraVolumeMounts": NAMED,
    "extraContainers": NAMED,
    "extraInitContainers": NAMED,
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
    "podDisruptionBudget.maxUnavailable": {
        "type": ["integer", "string"],
        "minimum": 1,
        "pattern": "^[1-9][0-9]*%$",
    },
    "podDisruptionBudget.unhealthyPodEvictionPolicy": {"enum": ["AlwaysAllow", "IfHealthyBudget"]},
    "networkPolicy.scrapers": LIST,
    "networkPolicy.extraEgress": LIST,
    "autoscaling.minReplicas": whole(1),
    "autoscaling.maxReplicas": whole(1),
    "autoscaling.fallbackReplicas": whole(1),
    "autoscaling.lagThreshold": whole(1),
    "autoscaling.lagSeconds": whole(0),
    "autoscaling.prometheusAddress": {"type": "string", "pattern": "^(https?://.+)?$"},
    "autoscaling.pollingInterval": whole(1),
    "autoscaling.scaleDownStabilizationSeconds": whole(0, 3_600),
    "autoscaling.authenticationRef": NAME,
    "prometheusRule.disabled": {"type": "array", "items": {"type": "string"}},
    "dashboards.labels": TEXTS,
    "dashboards.annotations": TEXTS,
    "nameOverride": NAME,
    "fullnameOverride": NAME,
}
"""Values whose default does not say enough."""
for _peer in ("dns", "kafka", "redis"):
    LIMITS |= {f"networkPolicy.{_peer}.peers": LIST, f"networkPolicy.{_peer}.ports": PORTS}
for _monitor in ("podMonitor", "serviceMonitor", "prometheusRule"):
    LIMITS |= {f"{_monitor}.labels": TEXTS}
for _monitor in ("podMonitor", "serviceMonitor"):
    LIMITS |= {f"{_monitor}.interval": DURATION, f"{_monitor}.scrapeTimeout": DURATION}
for _probe in ("startup", "liveness", "readiness"):
    LIMITS |= {
        f"probes.{_probe}": {
            "type": "object",
            "additionalProperties": False,
            "required": ["periodSeconds", "timeoutSeconds", "failureThreshold"],
            "properties": {
                name: whole(1) for name in ("periodSeconds", "timeoutSeconds", "failureThreshold")
            }
            | {"initialDelaySeconds": whole(0)},
        }
    }

NEEDED_SETTINGS = ["http_port", "kafka_bootstrap_servers", "kafka_group_id"]
"""Settings that templates read, and that therefore cannot be removed with null."""


def schema() -> Schema:
    """Returns the schema of values.yaml."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    whole_schema = _of(defaults, "")
    whole_schema["properties"]["settings"] = settings_schema()
    whole_schema["properties"]["global"] = {"type": "object"}  # helm adds it
    return {"$schema": "http://json-schema.org/draft-07/schema#", **whole_schema}


def _of(default: Any, path: str) -> Schema:
    """Returns the schema of one value: its limits, or what its default tells."""
    if path in LIMITS:
        return LIMITS[path]
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case str():
            return {"type": "string"}
        case dict():
            parts = {k: _of(v, f"{path}.{k}".lstrip(".")) for k, v in default.items()}
            return {"type": "object", "additionalProperties": False, "properties": parts}
    raise TypeError(f"{path} needs limits: its default, {default!r}, tells no type")


def settings_schema() -> Schema:
    """Returns the schema of `settings`: every setting of the daemon, with its type and range."""
    found = Settings.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": NEEDED_SETTINGS,
        "properties": {name: _bare(shape) for name, shape in found.items()},
    }


def _bare(shape: Schema) -> Schema:
    """Returns a setting's schema without what only pydantic reads."""
    kept = {
        name: value
        for name, value in shape.items()
        if name not in ("title", "default", "description", "format", "writeOnly")
    }
    if "anyOf" in kept:
        kept["anyOf"] = [_bare(choice) for choice in kept["anyOf"]]
    return kept


def text() -> str:
    """Returns the schema as the file holds it."""
    return json.dumps(schema(), indent=1) + "\n"
