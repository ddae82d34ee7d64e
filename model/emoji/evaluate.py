"""`adaptd evaluate` without events files: which θs are judged, on which tables of emoji."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from model.emoji.judge_tables import EmojiTest, EmojiTestOptions
from model.emoji.tables import (
    ALTERNATIVES,
    BEYOND,
    COMMANDS,
    EMBEDDINGS,
    SPOKEN,
    STABILITY,
    TABLES,
    UNTUNED,
    EmojiTable,
)
from model.emoji.tenants import TENANT_SEED
from model.evaluate.result_table import ResultTable
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init, shipped
from model.values.errors import BadData, BadMetaInit


@dataclass(frozen=True, slots=True)
class EmojiEvaluation:
    """An evaluation that is ready to run, table by table."""

    thetas: Mapping[str, MetaInit]
    missing: Mapping[str, str]
    """For each θ that cannot be used, a line that says why, and how to train it."""
    tables: tuple[EmojiTable, ...]
    with_stability: bool
    """Whether the table of extra inner steps is made too."""
    with_untuned: bool
    """Whether the table of data that nobody tuned is made too."""
    with_embeddings: bool
    """Whether the table of pairs of embeddings is made too."""
    with_beyond: bool
    """Whether the table of what θs were not trained on is made too."""
    with_spoken: bool
    """Whether the table of spoken names is made too."""
    options: EmojiTestOptions

    def steps(self) -> Iterator[tuple[str, Callable[[], ResultTable]]]:
        """Yield each table's title and the function that judges it, which takes seconds to
        minutes."""
        test = EmojiTest(self.thetas, self.missing, self.options)
        for table in self.tables:
            yield table.title, partial(test.judge, table)
        if self.with_stability:
            yield "extra inner steps", test.stability
        if self.with_untuned:
            yield "data that nobody tuned", test.untuned
        if self.with_embeddings:
            yield "pairs of embeddings", test.embeddings
        if self.with_beyond:
            yield "beyond what θs were trained on", test.beyond
        if self.with_spoken:
            yield "spoken names", test.spoken

    @property
    def facts(self) -> dict[str, Any]:
        """Seeds, θs and conditions of the evaluation, JSON-like; `facts` in it are for people."""
        plan = self.options.plan
        return {
            "seeds": {
                "episodes": plan.seed,
                "baselines": plan.seed,
                "first_tenant": TENANT_SEED,
                "episodes_per_stream": plan.episodes,
                "untuned": self.options.untuned.seed,
                "untuned_episodes_per_stream": self.options.untuned.episodes,
            },
            "thetas": {name: f"{t.version} {t.content_hash}" for name, t in self.thetas.items()},
            "facts": {
                "drawings": "twemoji, never trained on, unless a table says otherwise",
                "tenants": "synthetic; support and query share no concept; 128 candidates",
                "θ": ", ".join(t.version for t in self.thetas.values()) or "none",
                "run": f"seed {plan.seed}; {self.options.tenants} tenants, "
                f"{plan.episodes} episodes each"
                + ("; quick: figures not worth comparing" if self.options.quick else ""),
            },
        }


def emoji_evaluation(
    meta_init: Path | None, names: Sequence[str], options: EmojiTestOptions
) -> EmojiEvaluation:
    """Prepare an evaluation of the θ in a file, or of the shipped θs, on the tables of these names,
    or on all tables that fit.

    Raises BadMetaInit for a file that is no θ or fits no table, BadData for a name that no table
    has.
    """
    thetas, missing = shipped_thetas() if meta_init is None else ({}, {})
    every: Sequence[EmojiTable] = TABLES
    if meta_init is not None:
        theta = load_meta_init(meta_init)
        thetas, every = {theta.version: theta}, tables_for(theta, theta.version)
        if not every:
            raise BadMetaInit(
                f"{theta.version} maps {theta.source_modality} to {theta.target_modality} "
                f"({theta.target_dim}); no emoji table has such streams: name events files"
            )
    more = (STABILITY, UNTUNED, EMBEDDINGS, BEYOND, SPOKEN)
    known = [*(table.name for table in every), *more]
    if unknown := [name for name in names if name not in known]:
        raise BadData(f"{unknown[0]!r} is none of {', '.join(known)}")
    chosen = tuple(table for table in every if not names or table.name in names)

    def wanted(name: str) -> bool:
        return not names or name in names

    return EmojiEvaluation(
        thetas,
        missing,
        chosen,
        with_stability=wanted(STABILITY),
        with_untuned=wanted(UNTUNED),
        with_embeddings=wanted(EMBEDDINGS),
        with_beyond=wanted(BEYOND),
        with_spoken=SPOKEN in names,
        options=options,
    )


def shipped_thetas(folder: Path | None = None) -> tuple[dict[str, MetaInit], dict[str, str]]:
    """Load the θs that ship, or those in `folder`, by name. Return them, and for each that cannot
    be used a line that says why and how to train it."""
    found, missing = {}, {}
    for name in (*COMMANDS, *ALTERNATIVES):
        path = shipped(name) if folder is None else folder / f"{name}.safetensors"
        if name in ALTERNATIVES and not path.exists():
            continue
        try:
            theta = load_meta_init(path)
            Engine(theta, "cpu", support_capacity=1, query_capacity=0)
        except BadMetaInit as e:
            why = f"cannot be used ({e})" if path.exists() else "is not there"
            missing[name] = f"θ {name} {why}; to train it: {COMMANDS[name]} --out {path.name}"
        else:
            found[name] = theta
    return found, missing


def tables_for(theta: MetaInit, name: str) -> tuple[EmojiTable, ...]:
    """Return the tables whose streams θ can map, each with this θ alone."""
    return tuple(replace(table, thetas=(name,)) for table in TABLES if _fits(theta, table))


def _fits(theta: MetaInit, table: EmojiTable) -> bool:
    target = "text" if table.family is None and not table.spaces else "vector"
    if (theta.source_modality, theta.target_modality) != ("image", target):
        return False
    return target == "text" or theta.target_dim == table.dim
