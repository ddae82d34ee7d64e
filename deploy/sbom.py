"""Writes what an environment holds as a CycloneDX 1.6 document: `python sbom.py VERSION > FILE`.

Run by the interpreter of the environment, it lists the distributions that are installed there. The
same environment gives the same document: it has no date and no serial number.
"""

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any

ROOT = "adaptd"


def purl(name: str, version: str) -> str:
    """Returns the package URL of a distribution."""
    return f"pkg:pypi/{canonical(name)}@{version}"


def canonical(name: str) -> str:
    """Returns a distribution's name as package URLs and dependencies spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def field(found: Distribution, name: str) -> str:
    """Returns a field of a distribution's metadata, empty when it has none."""
    return str(found.metadata[name]).strip() if name in found.metadata else ""


def component(found: Distribution) -> dict[str, Any]:
    """Returns one library: name, version, package URL, and its licence where it names one."""
    name, version = canonical(found.metadata["Name"]), found.version
    entry = {
        "type": "library",
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "purl": purl(name, version),
    }
    if expression := field(found, "License-Expression"):
        return entry | {"licenses": [{"expression": expression}]}
    licence = field(found, "License")
    if licence and "\n" not in licence:
        return entry | {"licenses": [{"license": {"name": licence}}]}
    return entry


def required(found: Distribution, versions: dict[str, str]) -> list[str]:
    """Returns the package URLs of what it requires and the environment has, extras included."""
    names = {
        canonical(match[0])
        for line in found.requires or []
        if (match := re.match(r"[A-Za-z0-9][\w.-]*", line))
    }
    return sorted(purl(name, versions[name]) for name in names & versions.keys())


def document(version: str) -> dict[str, Any]:
    """Returns the whole document, whose subject is adaptd in this version."""
    found = {canonical(each.metadata["Name"]): each for each in distributions()}
    versions = {name: each.version for name, each in found.items()}
    libraries = [found[name] for name in sorted(found) if name != ROOT]
    subject = {
        "type": "application",
        "bom-ref": purl(ROOT, version),
        "name": ROOT,
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    needs = [{"ref": purl(ROOT, version), "dependsOn": required(found[ROOT], versions)}]
    for each in libraries:
        ref = purl(each.metadata["Name"], each.version)
        needs.append({"ref": ref, "dependsOn": required(each, versions)})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": [component(each) for each in libraries],
        "dependencies": needs,
    }


if __name__ == "__main__":
    json.dump(document(sys.argv[1]), sys.stdout, indent=1)
