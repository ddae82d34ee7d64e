"""Writes kubernetes/monitoring/prometheusrule.yaml from prometheus/rules.yaml.

Run `python -m deploy.prometheus.manifest` in the repository's root after a change of the rules.
"""

from __future__ import annotations

from pathlib import Path

RULES = Path(__file__).with_name("rules.yaml")
MANIFEST = Path(__file__).parents[1] / "kubernetes" / "monitoring" / "prometheusrule.yaml"

HEAD = """\
# Written by `python -m deploy.prometheus.manifest` from prometheus/rules.yaml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: adaptd
  labels:
    app.kubernetes.io/name: adaptd
    app.kubernetes.io/component: worker
spec:
"""


def manifest(rules: str) -> str:
    """Returns the manifest: the rules as they are, indented under `spec`."""
    body = rules[rules.index("\ngroups:\n") + 1 :].splitlines()
    return HEAD + "".join(f"  {line}".rstrip() + "\n" for line in body)


if __name__ == "__main__":
    MANIFEST.write_text(manifest(RULES.read_text()))
