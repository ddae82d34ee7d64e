"""`adaptd meta-train`: a θ from events files."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from daemon.errors import Misconfigured

if TYPE_CHECKING:
    from daemon.offline.meta_train import Result, Wanted
    from model.meta.recipe import Recipe
    from model.meta.state import Progress

FLAGS = ("generator", "learner", "steps", "hidden_dim", "seed")
"""Settings of a recipe that have an option of their own."""


def meta_train(
    events: Annotated[list[Path], typer.Argument(help="Events files, .jsonl or .msgpack.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write θ.")],
    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="TOML file of recipe settings.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="mlp, attention or adversarial. [default: mlp]")
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(help="maml, fomaml, reptile, meta-sgd, anil, adam, r2d2. [default: maml]"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Outer steps at most.")] = None,
    hidden_dim: Annotated[int | None, typer.Option(min=1, help="Hidden units.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    parent: Annotated[
        Path | None, typer.Option("--from", help="Go on from this θ, with its encoders.")
    ] = None,
    source_encoder: Annotated[
        str | None,
        typer.Option(help="A θ whose encoder to use, train, or none. [default: what fits]"),
    ] = None,
    target_encoder: Annotated[
        str | None,
        typer.Option(help="A θ whose encoder to use, train, or none. [default: what fits]"),
    ] = None,
    encoder_dim: Annotated[
        int, typer.Option(min=1, max=65_536, help="Features of a trained encoder.")
    ] = 64,
    encoder_steps: Annotated[
        int, typer.Option(min=1, help="Steps of training encoders, at most.")
    ] = 1_000,
    picture_side: Annotated[
        int, typer.Option(min=8, max=256, help="Pixels that a trained encoder sees a picture in.")
    ] = 32,
    text_chars: Annotated[
        int, typer.Option(min=1, max=65_536, help="Characters that a trained encoder reads.")
    ] = 128,
    name: Annotated[str | None, typer.Option(help="Begins θ's version. [default: --out's]")] = None,
    split_labels: Annotated[
        bool, typer.Option("--split-labels", help="Judge on labels that were not trained on.")
    ] = False,
    temporal: Annotated[
        bool, typer.Option("--temporal", help="Train on queries newer than their supports.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Training state; continues where it left off. [default: beside --out]"),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="An HTML page with curves and examples.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON on stdout.")] = False,
) -> None:
    """Meta-train a θ on recorded events, and judge it on streams it never saw.

    Streams are split by name into training, validation (to stop in time) and test. A training that
    was killed continues from its checkpoint, and ends with the same θ. On several processes:
    torchrun --nproc-per-node 2 --module daemon meta-train ...
    """
    from daemon.config import Settings
    from daemon.offline.encoders import FreshSizes
    from daemon.offline.meta_train import Wanted
    from daemon.wire.paired_event import EventLimits
    from model.meta.encoders.training import EncodersRecipe
    from model.meta.training import Saving

    flags = dict(zip(FLAGS, (generator, learner, steps, hidden_dim, seed), strict=True))
    settings = Settings()
    limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
    recipe = _recipe(recipe_file, {n: v for n, v in flags.items() if v is not None})
    wanted = Wanted(
        events=tuple(events),
        name=name or out.stem,
        recipe=recipe,
        limits=limits,
        parent=parent,
        source_encoder=source_encoder,
        target_encoder=target_encoder,
        fresh=FreshSizes(encoder_dim, picture_side, text_chars, recipe.seed),
        encoders=EncodersRecipe(steps=encoder_steps, seed=recipe.seed),
        split_labels=split_labels,
        temporal=temporal,
        saving=Saving(checkpoint or out.with_suffix(".training")),
    )
    _train(wanted, out, report, as_json=as_json)


def _recipe(file: Path | None, flags: dict[str, Any]) -> Recipe:
    from model.meta.recipe import Recipe

    try:
        config = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise Misconfigured(f"{file}: not a readable TOML file: {e}") from e
    try:
        return Recipe.from_config(config | flags)
    except ValueError as e:
        raise Misconfigured(str(e)) from e


def _train(wanted: Wanted, out: Path, report: Path | None, *, as_json: bool) -> None:
    import torch

    from daemon.offline import results
    from daemon.offline.meta_train import meta_train as run
    from model.theta.meta_init_file import save_meta_init
    from model.values.errors import Diverged

    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # torchrun's rank
    try:
        steps = {"meta-training": wanted.recipe.steps, "encoders": wanted.encoders.steps}
        with _bars(console, steps) as (on_step, on_encoder_step):
            note = partial(console.print, highlight=False)
            result = run(wanted, note, on_step, on_encoder_step)
    except Diverged as e:
        console.print(f"adaptd: meta-training diverged: {e}", highlight=False)
        raise typer.Exit(1) from e
    if result is None:
        return
    save_meta_init(result.theta, out)
    if result.figures:
        console.print(results.as_table(result.theta.version, result.figures))
    if report is not None:
        results.write_page(
            report,
            result.theta.version,
            result.facts,
            result.figures,
            results.training_curves(result.progress.history),
            result.examples,
        )
        console.print(f"wrote {report}", highlight=False)
    console.print(f"wrote {out}: {result.theta.version}", highlight=False)
    if as_json:
        typer.echo(results.as_json(_document(result)))


def _document(result: Result) -> dict[str, Any]:
    from daemon.offline.results import figures_document

    return {
        "theta": result.theta.version,
        "content_hash": result.theta.content_hash,
        "facts": result.facts,
        "history": result.progress.history,
        "encoder_history": [] if (went := result.sides.trained) is None else went.history,
        "figures": figures_document(result.figures),
    }


@contextmanager
def _bars(console: Console, steps: Mapping[str, int]) -> Iterator[list[Callable[[Any], None]]]:
    """What moves each bar; a bar appears with its first step."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:

        def moving(name: str, total: int) -> Callable[[Any], None]:
            line = bars.add_task(name, total=total, figures="", visible=False)

            def on_step(progress: Any) -> None:
                figures = _figures(progress)
                bars.update(line, completed=progress.step, figures=figures, visible=True)

            return on_step

        yield [moving(name, total) for name, total in steps.items()]


def _figures(progress: Progress) -> str:
    if not progress.history:
        return ""
    row = progress.history[-1]
    return "  ".join(
        f"{name} {row[name]:.3f}" for name in ("outer_loss", "validation_loss") if name in row
    )
