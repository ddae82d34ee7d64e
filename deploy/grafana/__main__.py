"""Writes the dashboards: `python -m deploy.grafana`."""

from __future__ import annotations

from deploy.grafana.files import board_files


def main() -> None:
    """Writes each board's JSON beside this file."""
    for path, text in board_files():
        path.write_text(text)


if __name__ == "__main__":
    main()
