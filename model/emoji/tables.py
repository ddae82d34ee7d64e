"""The tables of the emoji meta-test: tenants, drawings, θs and baselines of each. Data alone."""

from dataclasses import dataclass
from typing import Literal

from model.emoji.drawings import HELD_OUT_VENDOR, Split
from model.emoji.tenants import LOW_RANK_DIM, ROTATION_DIM, Family

Baselines = Literal["all", "closed forms", "ridge"]
"""`all` adds baselines that are trained on training tenants to the closed forms; `ridge` is ridge
and luck alone."""


@dataclass(frozen=True, slots=True)
class EmojiTable:
    """One table of the meta-test."""

    name: str
    title: str
    thetas: tuple[str, ...]
    """Names of shipped θs."""
    dim: int
    """Dimensions of the targets."""
    family: Family | None = "low-rank"
    """None where streams are languages."""
    languages: Literal["trained", "held out"] = "trained"
    spaces: bool = False
    """Whether a language's targets are the space that its names make, by
    `model.emoji.language_spaces`, of languages that nothing was trained on; otherwise they are
    encoded names."""
    split: Split = "train"
    vendor: str = HELD_OUT_VENDOR
    noise: float = 0.0
    """Standard deviation of the noise on drawings, as a share of the range from black to white."""
    baselines: Baselines = "closed forms"
    setting: str | None = None
    """The table's name in the summary; None keeps the table out of it."""
    against_ridge: bool = False
    """Whether what the gate publishes is compared with ridge, episode by episode."""


_LOW, _BOTH = LOW_RANK_DIM, ROTATION_DIM
_FOR_LOW, _FOR_BOTH = ("emoji-lowrank",), ("emoji-both",)
_NOISY = "fluent-emoji-high-contrast"


def _neither(thetas: tuple[str, ...], dim: int, family: Family, words: str) -> EmojiTable:
    return EmojiTable(
        f"neither-{family}-{dim}",
        f"Tenants of neither family: {words}, {dim} dimensions",
        thetas,
        dim,
        family,
        baselines="ridge",
        against_ridge=True,
    )


_NEITHER = (
    _neither(_FOR_LOW, _LOW, "linear", "a random linear map"),
    _neither(_FOR_LOW, _LOW, "permutation", "a permutation of the dimensions"),
    _neither(_FOR_BOTH, _BOTH, "linear", "a random linear map"),
    _neither(_FOR_BOTH, _BOTH, "permutation", "a permutation of the dimensions"),
)


def _spaces(dim: int, thetas: tuple[str, ...], split: Split = "train") -> EmojiTable:
    unseen = split != "train"
    return EmojiTable(
        f"languages-{dim}" + ("-unseen" if unseen else ""),
        f"Languages that nothing was trained on, each with a space of its own, {dim} dimensions"
        + (", concepts never trained on" if unseen else ""),
        thetas,
        dim,
        None,
        spaces=True,
        split=split,
        setting=None if unseen else f"languages, {dim}",
        against_ridge=True,
    )


_SPACES_LOW = ("emoji-lowrank", "emoji-lowrank-maml")

TABLES: tuple[EmojiTable, ...] = (
    EmojiTable(
        "low-rank",
        "Low-rank tenants, 32 dimensions",
        ("emoji-lowrank", "emoji-lowrank-maml"),
        _LOW,
        baselines="all",
        setting="low-rank",
    ),
    EmojiTable(
        "rotation",
        "Rotation tenants, 16 dimensions",
        ("emoji-rotation", "emoji-both"),
        _BOTH,
        "rotation",
        baselines="all",
        setting="rotation",
    ),
    EmojiTable(
        "both-low-rank",
        "One θ for both families: low-rank tenants, 16 dimensions",
        _FOR_BOTH,
        _BOTH,
        setting="both: low-rank",
    ),
    EmojiTable(
        "both-rotation",
        "One θ for both families: rotation tenants, 16 dimensions",
        _FOR_BOTH,
        _BOTH,
        "rotation",
        setting="both: rotation",
    ),
    EmojiTable(
        "unseen-low-rank",
        "Concepts never trained on: low-rank tenants, 32 dimensions",
        _FOR_LOW,
        _LOW,
        split="validation",
    ),
    EmojiTable(
        "unseen-rotation",
        "Concepts never trained on: rotation tenants, 16 dimensions",
        _FOR_BOTH,
        _BOTH,
        "rotation",
        split="validation",
    ),
    *_NEITHER,
    EmojiTable(
        "neither-noise",
        f"Drawings unlike the others: {_NOISY} with noise of 0.3, low-rank tenants, 32 dimensions",
        _FOR_LOW,
        _LOW,
        vendor=_NOISY,
        noise=0.3,
        baselines="ridge",
        against_ridge=True,
    ),
    _spaces(_BOTH, _FOR_BOTH),
    _spaces(_LOW, _SPACES_LOW),
    _spaces(64, ("emoji-names",)),
    _spaces(_LOW, _SPACES_LOW, "validation"),
    EmojiTable(
        "names",
        "Image to name: streams are languages, not synthetic",
        ("emoji-names",),
        64,
        None,
        baselines="all",
        against_ridge=True,
    ),
    EmojiTable(
        "names-held-out",
        "Image to name: languages that nothing was trained on",
        ("emoji-names",),
        64,
        None,
        languages="held out",
        baselines="all",
        against_ridge=True,
    ),
)
STABILITY = "stability"
UNTUNED = "untuned"
"""The table of transformed streams (`model.emoji.judge_untuned`)."""
EMBEDDINGS = "embeddings"
"""The table of pairs of embeddings (`model.emoji.judge_embeddings`)."""
BEYOND = "beyond"
"""The table of what θs were not trained on (`model.emoji.judge_beyond`)."""
SPOKEN = "spoken"
"""The table of spoken names (`model.emoji.judge_spoken`), which needs espeak-ng: made when asked
for by name."""
NAMES = (*(table.name for table in TABLES), STABILITY)

_TENANTS = "python -m model.emoji.train_tenants --encoder-from FILE"
_EMOJI = "python -m model.emoji.train_thetas"
COMMANDS: dict[str, str] = {
    "emoji-lowrank": f"{_TENANTS} --families low-rank",
    "emoji-lowrank-maml": f"{_EMOJI} maml --encoder-from FILE",
    "emoji-both": f"{_TENANTS} --families both",
    "emoji-names": f"{_EMOJI} names --encoder-from FILE --text-from FILE",
}
"""The command that trains each shipped θ, without --out; FILE is the encoder, or a θ that has
it."""
ALTERNATIVES = ("emoji-rotation",)
"""θs that are judged where their files are there, and not missed otherwise: `emoji-both` maps the
same streams."""
