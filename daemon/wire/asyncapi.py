"""The topics as an AsyncAPI document, made from the schemas that the code decodes with.

python -m daemon.wire.asyncapi > docs/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import msgspec

from daemon.wire import adapted_mapping, paired_event

REFS = "#/components/schemas/{name}"
STREAM_KEY = {"type": "string", "description": "The stream's id, UTF-8."}


def document() -> dict[str, Any]:
    """AsyncAPI 3.0, topics by their default names."""
    (event, facts), schemas = msgspec.json.schema_components(
        [paired_event.PairedEvent, adapted_mapping.Facts], ref_template=REFS
    )
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
        "properties": {
            f"adaptd-{name}": {"type": "string"}
            for name in (
                "topic",
                "partition",
                "offset",
                "timestamp-ms",
                "error",
                "reason",
                "detail",
            )
        },
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
                "Written, compacted. A safetensors file: w1 (H, D), b1 (H), w2 (E, H), b2 (E), "
                "float32, and the facts as its metadata. Keep the largest (epoch, version).",
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
        },
        "operations": {
            "readEvents": _operation("receive", "paired-events"),
            "publishMappings": _operation("send", "adapted-mappings"),
            "putAside": _operation("send", "paired-events-dlq"),
        },
        "components": {"schemas": schemas},
    }


def _channel(description: str, message: dict[str, Any]) -> dict[str, Any]:
    keyed = message | {"bindings": {"kafka": {"key": STREAM_KEY}}}
    return {"description": description, "messages": {"record": keyed}}


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2) + "\n")
