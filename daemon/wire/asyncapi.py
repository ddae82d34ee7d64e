"""Describes the topics as an AsyncAPI document, from the schemas that the code decodes with.

python -m daemon.wire.asyncapi > docs/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import msgspec

from daemon.wire import adapted_mapping, dead_letter, meta_init, paired_event
from daemon.wire.canary import CANDIDATE_KEY, Canary
from daemon.wire.catalogue import Active
from daemon.wire.evidence import StreamEvidence

REFS = "#/components/schemas/{name}"
STREAM_KEY = "The stream's id, UTF-8."


def asyncapi_document() -> dict[str, Any]:
    """Returns the document: AsyncAPI 3.0, with the topics under their default names."""
    kinds = [paired_event.PairedEvent, adapted_mapping.Facts, Active, Canary, StreamEvidence]
    (event, facts, active, canary, evidence), schemas = msgspec.json.schema_components(
        kinds, ref_template=REFS
    )
    schemas = json.loads(json.dumps(schemas))  # a default may be a tuple
    mapping_headers = {
        "type": "object",
        "description": "The facts as text, each name behind `adaptd-`.",
        "properties": {
            adapted_mapping.HEADER_PREFIX + name: {"type": "string"}
            for name in adapted_mapping.Facts.__struct_fields__
        },
    }
    letter_headers = {
        "type": "object",
        "description": "The record's own headers, and these.",
        "properties": {name: {"type": "string"} for name in dead_letter.HEADERS},
    }
    theta_headers = {
        "type": "object",
        "description": "What θ is, as text; its facts as `adaptd-fact-...`, if short.",
        "properties": {name: {"type": "string"} for name in meta_init.HEADERS},
    }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "adaptd", "version": version("adaptd")},
        "channels": {
            "paired-events": _channel(
                "Read. MessagePack, or JSON with the header content-type: application/json.",
                {"contentType": paired_event.MSGPACK, "payload": event},
            ),
            "adapted-mappings": _channel(
                "Written, compacted. A safetensors file, with the facts as its metadata; each "
                "record tells its own encoding and dtype. full: w1 (H, D), b1 (H), w2 (E, H), "
                "b2 (E). lowrank: x (S, D), a (S, H), beta (H), y (S, E), n (H+1, H+1), "
                "v (S, H+1), those that change something, added to the θ of meta_init_hash: "
                "w1 + aᵀ·x, b1 + beta, [w2, b2]·(1 + n) + yᵀ·v; in float16 each is multiplied "
                "with its number in scales, by name. Keep the largest (epoch, version).",
                {
                    "contentType": "application/x-safetensors",
                    "headers": mapping_headers,
                    "payload": {"type": "string", "format": "binary", "x-metadata": facts},
                },
            ),
            "paired-events-dlq": _channel(
                "Written. The record as it came, with its place and the reason.",
                {
                    "contentType": "application/octet-stream",
                    "headers": letter_headers,
                    "payload": {"type": "string", "format": "binary"},
                },
            ),
            "meta-inits": {
                "description": "Written by `adaptd meta-init`, read by workers. Compacted, one "
                "partition. A value of none deletes a θ.",
                "messages": {
                    "theta": {
                        "contentType": "application/x-safetensors",
                        "headers": theta_headers,
                        "payload": {"type": "string", "format": "binary"},
                        "bindings": _key("θ's version, UTF-8; it does not begin with @."),
                    },
                    "active": {
                        "contentType": "application/json",
                        "payload": active,
                        "bindings": _key(meta_init.ACTIVE_KEY),
                    },
                    "candidate": {
                        "contentType": "application/json",
                        "payload": canary,
                        "bindings": _key(CANDIDATE_KEY),
                    },
                },
            },
            "meta-evidence": {
                "description": "Written and read by workers: whether a candidate θ is better than "
                "the active one, once for each stream that judges. Not compacted, one partition; "
                "the first record of a key counts.",
                "messages": {
                    "record": {
                        "contentType": paired_event.MSGPACK,
                        "payload": evidence,
                        "bindings": _key("<content hash of the candidate>/<stream>, UTF-8."),
                    }
                },
            },
        },
        "operations": {
            "readEvents": _operation("receive", "paired-events"),
            "publishMappings": _operation("send", "adapted-mappings"),
            "putAside": _operation("send", "paired-events-dlq"),
            "followMetaInits": _operation("receive", "meta-inits"),
            "publishMetaInits": _operation("send", "meta-inits"),
            "tellEvidence": _operation("send", "meta-evidence"),
            "readEvidence": _operation("receive", "meta-evidence"),
        },
        "components": {"schemas": schemas},
    }


def _channel(description: str, message: dict[str, Any]) -> dict[str, Any]:
    keyed = message | {"bindings": _key(STREAM_KEY)}
    return {"description": description, "messages": {"record": keyed}}


def _key(description: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": description}}}


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncapi_document(), indent=2) + "\n")
