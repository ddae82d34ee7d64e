"""`adaptd meta-train`: meta-train a θ on events files."""

from __future__ import annotations

import os
import tomllib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from daemon.commands.outputs import require_writable, writing
from daemon.errors import Misconfigured
from model.values.outside import described

if TYPE_CHECKING:
    from daemon.offline.meta_train import MetaTrainRequest, MetaTrainResult
    from model.meta.recipe import Recipe

FLAGS = ("generator", "learner", "steps", "hidden_dim", "seed")
"""Recipe settings that have an option of their own."""


def meta_train(
    events: Annotated[list[Path], typer.Argument(help="Events files, .jsonl or .msgpack.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write θ to.")],
    recipe_file: Annotated[
        Path | None, typer.Option("--recipe", help="TOML file of recipe settings.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="mlp, attention, mixture or adversarial. [default: fits]")
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option(
            help="maml, fomaml, reptile, meta-sgd, anil, adam, r2d2, alpaca. [default: fits]"
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1, max=1e6, help="About the most time, of a core, to choose a recipe for."
        ),
    ] = 10.0,
    steps: Annotated[int | None, typer.Option(min=1, help="The most outer steps.")] = None,
    hidden_dim: Annotated[int | None, typer.Option(min=1, help="Hidden units.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    parent: Annotated[
        Path | None, typer.Option("--from", help="Start from this θ, with its encoders.")
    ] = None,
    source_encoder: Annotated[
        str | None,
        typer.Option(
            help="A θ's file whose encoder to use, or train, or none. [default: what fits]"
        ),
    ] = None,
    target_encoder: Annotated[
        str | None,
        typer.Option(
            help="A θ's file whose encoder to use, or train, or none. [default: what fits]"
        ),
    ] = None,
    encoder_dim: Annotated[
        int, typer.Option(min=1, max=65_536, help="Number of features of a trained encoder.")
    ] = 64,
    encoder_steps: Annotated[
        int, typer.Option(min=1, help="The most steps of training encoders.")
    ] = 1_000,
    picture_side: Annotated[
        int,
        typer.Option(
            min=8, max=256, help="Pixels a side to which a trained encoder scales pictures."
        ),
    ] = 32,
    text_chars: Annotated[
        int,
        typer.Option(min=1, max=65_536, help="Characters of a text that a trained encoder reads."),
    ] = 128,
    name: Annotated[
        str | None, typer.Option(help="First part of θ's version. [default: --out's name]")
    ] = None,
    split_labels: Annotated[
        bool, typer.Option("--split-labels", help="Evaluate on labels that were not trained on.")
    ] = False,
    temporal: Annotated[
        bool,
        typer.Option("--temporal", help="Train on queries that are newer than their supports."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="File of the training's state, from which it continues. [default: beside --out]"
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and examples.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Meta-train a θ on recorded events, and evaluate it on streams that it never saw.

    Streams are split by name into training, validation (to stop in time) and test. A training that
    was killed continues from its checkpoint and ends with the same θ. On several processes:
    torchrun --nproc-per-node 2 --module daemon meta-train ...
    """
    from daemon.config import Settings
    from daemon.offline.meta_train import MetaTrainRequest
    from daemon.offline.sides import FreshSizes
    from daemon.wire.paired_event import EventLimits
    from model.meta.encoders.training import EncodersRecipe
    from model.meta.progress import Saving
    from model.meta.recipe_choice import RecipeChoice

    require_writable(out, report)
    flags = dict(zip(FLAGS, (generator, learner, steps, hidden_dim, seed), strict=True))
    settings = Settings()
    limits = EventLimits(settings.max_event_bytes, settings.max_pairs_per_event)
    given = {n: v for n, v in flags.items() if v is not None}
    given, recipe = _recipe(recipe_file, given)
    request = MetaTrainRequest(
        events=tuple(events),
        name=name or out.stem,
        recipe=recipe,
        limits=limits,
        choice=RecipeChoice(minutes, given),
        parent=parent,
        source_encoder=source_encoder,
        target_encoder=target_encoder,
        fresh=FreshSizes(encoder_dim, picture_side, text_chars, recipe.seed),
        encoders=EncodersRecipe(steps=encoder_steps, seed=recipe.seed),
        split_labels=split_labels,
        temporal=temporal,
        saving=Saving(checkpoint or out.with_suffix(".training")),
    )
    _train(request, out, report, as_json=as_json)


def _recipe(file: Path | None, flags: dict[str, Any]) -> tuple[dict[str, Any], Recipe]:
    """Return the settings that are given, and a recipe of them. Raises Misconfigured."""
    from model.meta.recipe import Recipe

    try:
        config = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise Misconfigured(f"{file}: not a readable TOML file: {e}") from e
    try:
        return config | flags, Recipe.from_config(config | flags)
    except ValueError as e:
        raise Misconfigured(str(e)) from e
    except (TypeError, KeyError, AttributeError) as e:
        raise Misconfigured(f"{file}: not a recipe: {described(e)}") from e


def _train(request: MetaTrainRequest, out: Path, report: Path | None, *, as_json: bool) -> None:
    import torch

    from daemon.commands.progress import showing_progress
    from daemon.commands.results_json import as_json as to_json
    from daemon.commands.results_page import training_curves, write_training_page
    from daemon.commands.results_tables import figures_table
    from daemon.offline.meta_train import meta_train_recorded
    from model.theta.meta_init_file import save_meta_init
    from model.values.errors import Diverged

    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # torchrun's rank
    try:
        note = partial(console.print, highlight=False, soft_wrap=True)
        with showing_progress(console) as on_step:
            result = meta_train_recorded(request, note, on_step, on_step)
    except Diverged as e:
        console.print(f"adaptd: meta-training diverged: {e}", highlight=False)
        raise typer.Exit(1) from e
    if result is None:
        return
    with writing(out):
        save_meta_init(result.theta, out)
    if result.figures:
        console.print(figures_table(result.theta.version, result.figures))
    if report is not None:
        write_training_page(
            report,
            result.theta.version,
            result.facts,
            result.figures,
            training_curves(result.progress.history),
            result.examples,
        )
        console.print(f"wrote {report}", highlight=False)
    console.print(f"wrote {out}: {result.theta.version}", highlight=False)
    console.print(result.verdict, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(to_json(_document(result)))


def _document(result: MetaTrainResult) -> dict[str, Any]:
    from daemon.commands.results_json import figures_document

    return {
        "theta": result.theta.version,
        "content_hash": result.theta.content_hash,
        "facts": result.facts,
        "verdict": result.verdict,
        "history": result.progress.history,
        "encoder_history": [] if (went := result.sides.trained) is None else went.history,
        "figures": figures_document(result.figures),
    }
