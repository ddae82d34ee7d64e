"""Writes what is made from the chart and the daemon's settings: `python -m deploy.helm`.

That is the chart's values.schema.json and README.md, and the plain manifests of kubernetes/.
"""

from deploy.helm import readme, schema
from deploy.helm.render import CHART, plain_manifests


def main() -> None:
    """Writes them; the schema first, since helm reads it."""
    (CHART / "values.schema.json").write_text(schema.text())
    (CHART / "README.md").write_text(readme.text())
    for path, rendered in plain_manifests():
        path.write_text(rendered)


if __name__ == "__main__":
    main()
