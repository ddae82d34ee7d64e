"""Adds to θs of emoji pictures what sources they were trained on, without training anything.

    python -m model.emoji.add_usual_sources FILE...

θs that are trained today have it from the start (`model.emoji.train_tenants`, `train_thetas`); this
gives the same to files of before. A θ's own encoder reads the pictures that θ was trained on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from model.emoji.train_tenants import cache_features, usual_sources
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, save_meta_init
from model.values.errors import BadMetaInit


def with_usual_sources(theta: MetaInit, seed: int = 0) -> MetaInit:
    """Return θ with its usual sources, under a version that ends with its new content hash.

    `seed` is that of its training. Raises BadMetaInit where its sources are no pictures.
    """
    if theta.source_encoder is None or theta.source_modality != "image":
        raise BadMetaInit(f"{theta.version} maps {theta.source_modality}, no encoded pictures")
    features = cache_features(theta.source_encoder, theta.target_dim, seed)
    name = theta.version.rpartition("-")[0] or theta.version
    known = replace(theta, version=name, usual_sources=usual_sources(features))
    return replace(known, version=f"{name}-{known.content_hash[:8]}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Add to θs what sources they were trained on.")
    parser.add_argument("files", type=Path, nargs="+")
    console = Console(soft_wrap=True)
    for path in parser.parse_args().files:
        theta = with_usual_sources(load_meta_init(path))
        save_meta_init(theta, path)
        console.print(f"wrote {path}: {theta.version}")


if __name__ == "__main__":
    main()
