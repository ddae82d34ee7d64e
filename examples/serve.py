"""Answers requests by each stream's newest mapping: a program made of what docs/sdk.md says.

    python examples/serve.py < requests.jsonl

Each line of the input is {"stream": "camera-7", "x": [0.1, ...]}, and each line of the output has
the answer `y`, what it was `served_by`, and the mapping's epoch and version. Settings are those of
the daemon (ADAPTD_KAFKA_BOOTSTRAP_SERVERS and so on).
"""

import json
import sys
from pathlib import Path

from daemon.client.subscriber import MappingSubscriber, NoMapping, Prediction
from daemon.config import load_settings


def main() -> None:
    """Answers every line of the standard input."""
    with MappingSubscriber(load_settings(None), snapshot=Path("mappings.snapshot")) as mappings:
        mappings.wait_until_current(timeout_s=60)
        for line in sys.stdin:
            try:
                request = json.loads(line)
                answer = described(mappings.predict(request["stream"], request["x"]))
            except (NoMapping, ValueError, KeyError, TypeError) as e:
                answer = {"error": f"{type(e).__name__}: {e}"}
            print(json.dumps(answer), flush=True)


def described(prediction: Prediction) -> dict[str, object]:
    """Returns a prediction as JSON has it."""
    answer: dict[str, object] = {"y": prediction.values.tolist(), "served_by": prediction.served_by}
    if prediction.mapping is not None:
        facts = prediction.mapping.facts
        answer |= {"epoch": facts.epoch, "version": facts.version, "hash": facts.content_hash}
    return answer


if __name__ == "__main__":
    main()
