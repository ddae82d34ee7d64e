"""What a meta-test says, in one sentence: which baselines θ beats, which beat it, what to try."""

from collections.abc import Iterable, Sequence

from model.evaluate.scoring import Figures
from model.meta.recipe_choice import WIDEST_ATTENTION
from model.theta.meta_init import MetaInit

PUBLISHED = "gated"
"""The method that stands for θ: what the daemon would publish."""
OWN = ("adapted", "theta")
"""Methods that are θ's too, and no baselines."""
LEVEL = 0.005
"""A difference of R@1 that counts for nothing."""


def baseline_verdict(figures: Sequence[Figures], advice: str) -> str:
    """Return whether θ beats each baseline in R@1 at each number of pairs. Where one beats θ, the
    sentence names it and ends with `advice`."""
    recall = {(f.method, f.pairs): f.measures["r_at_1"].mean for f in figures}
    sizes = sorted({f.pairs for f in figures})
    names = list(dict.fromkeys(f.method for f in figures))
    baselines = [name for name in names if name not in (PUBLISHED, *OWN)]
    if not sizes or PUBLISHED not in names:
        return "θ was not judged: no test stream is long enough"
    found: dict[str, list[str]] = {"beats": [], "is level with": [], "is beaten by": []}
    for name in baselines:
        words = [_compared(recall[PUBLISHED, n], recall[name, n]) for n in sizes]
        for word in dict.fromkeys(words):
            at = [n for n, each in zip(sizes, words, strict=True) if each == word]
            where = "" if len(at) == len(sizes) else f" at {_listed(map(str, at))} pairs"
            shown = ", ".join(f"{recall[name, n]:.3f} to {recall[PUBLISHED, n]:.3f}" for n in at)
            found[word].append(name + where + (f" ({shown})" if word == "is beaten by" else ""))
    if len(found["beats"]) == len(baselines) and not any(" at " in n for n in found["beats"]):
        return f"θ beats every baseline at {_listed(map(str, sizes))} pairs"
    said = [f"{word} {_listed(them)}" for word, them in found.items() if them]
    return f"θ {'; '.join(said)}" + (f". Try {advice}" if found["is beaten by"] else "")


def advice_for(
    theta: MetaInit, *, streams: int, ended_by_steps: bool, minutes: float | None
) -> str:
    """Return what may make θ better, after a training on so many streams that ended by its steps or
    by validation, with so many minutes to choose a recipe for (None: the recipe was given)."""
    tried = []
    if streams < 30:
        tried.append(f"more streams to train on than {streams}")
    if ended_by_steps:
        longer = "--steps" if minutes is None else f"--minutes {2 * minutes:g}"
        tried.append(f"a longer training ({longer})")
    if theta.target_dim <= WIDEST_ATTENTION:
        tried += [f"--generator {k}" for k in ("attention", "mixture") if k != theta.generator.kind]
    return _listed(tried, "or") or "a recipe of your own (--recipe), or fewer noisy pairs"


def _compared(ours: float, theirs: float) -> str:
    if abs(ours - theirs) <= LEVEL:
        return "is level with"
    return "beats" if ours > theirs else "is beaten by"


def _listed(parts: Iterable[str], last: str = "and") -> str:
    texts = list(parts)
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}"
