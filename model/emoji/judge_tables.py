"""Meta-test on the held-out vendor's drawings: shipped θs beside baselines, table by table.

S = support pairs, Q = query pairs, N = pairs of a stream (one of each concept), Y = candidates
(concepts), R = rows (pictures of a concept), D = source dim, E = target dim

A tenant is synthetic; its support and query share no concept. Each query's target is to be found
among the 128 query targets of its stream. All methods see the same episodes: θs by their own
encoders, the baselines by the first θ's.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from model.baselines.joint import JointRecipe
from model.emoji import baselines as emoji_baselines
from model.emoji import drawings as emoji
from model.emoji import language_spaces
from model.emoji import names as emoji_names
from model.emoji import streams as emoji_streams
from model.emoji.baselines import Choices
from model.emoji.judge_beyond import beyond_cases, judge_beyond
from model.emoji.judge_embeddings import judge_embeddings
from model.emoji.judge_spoken import SPOKEN_TITLE, judge_spoken
from model.emoji.judge_untuned import UNTUNED_THETAS, UntunedOptions, judge_untuned, untuned_thetas
from model.emoji.spoken import SPOKEN_ENCODER, SPOKEN_LANGUAGES
from model.emoji.streams import FeatureCache, part_version
from model.emoji.tables import ALTERNATIVES, SPOKEN, STABILITY, TABLES, EmojiTable
from model.emoji.train_tenants import cache_features
from model.emoji.training_episodes import NameFeatures
from model.evaluate import comparison
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.episodes import MetaTestEpisode
from model.evaluate.examples import Example, Picture, Shown, examples_of
from model.evaluate.methods import Method
from model.evaluate.result_table import AgainstRidge, ResultRow, ResultTable, method_name
from model.evaluate.scoring import Scores, difference, scored, summarised
from model.evaluate.stability import stability
from model.meta.recorded_streams import RecordedStream
from model.theta.meta_init import MetaInit
from model.theta.part_file import load_encoder

Episodes = dict[int, list[MetaTestEpisode]]
"""Episodes by number of support pairs."""
ScoresByPairs = dict[int, list[Scores]]
"""Scores of every episode, by number of support pairs."""
STABILITY_PAIRS = 16


@dataclass(frozen=True, slots=True)
class EmojiTestOptions:
    """How large the emoji meta-test is."""

    tenants: int = 40
    plan: MetaTestPlan = field(default_factory=MetaTestPlan)
    languages: int = 24
    """The most languages that a table judges on, evenly chosen among those it is about."""
    joint: JointRecipe = field(default_factory=lambda: JointRecipe(steps=1_000))
    """Half the default number of steps, for time: with all of them fine-tuning finds 0.01 more with
    16 pairs."""
    extra_steps: int = 25
    """Extra inner steps in the table `stability`: five times the five that θs are trained for."""
    untuned: UntunedOptions = field(default_factory=UntunedOptions)
    """How large the table of data that nobody tuned is."""
    quick: bool = False
    """Whether this is too small for its figures to be worth comparing."""


def full_options(seed: int = 0) -> EmojiTestOptions:
    """Return the options whose figures are worth reporting."""
    return EmojiTestOptions(plan=MetaTestPlan(seed=seed), untuned=UntunedOptions(seed=seed))


def quick_options(seed: int = 0) -> EmojiTestOptions:
    """Return options that show that everything works; their figures are not worth comparing."""
    return EmojiTestOptions(
        tenants=4,
        plan=MetaTestPlan((5, 16), 1, seed=seed),
        languages=3,
        joint=JointRecipe(steps=30, streams=4),
        extra_steps=5,
        untuned=UntunedOptions(2, 1, (5, 16), every=24, static_tenants=1, seed=seed),
        quick=True,
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """A method, and its scores."""

    theta: str | None
    method: str
    run: Method
    found: ScoresByPairs
    same_features: bool = True
    """Whether it sees the features that the baselines see."""

    @property
    def name(self) -> str:
        return method_name(self.theta, self.method)


class EmojiTest:
    """Judges tables. What they share (features, trained baselines) is computed once."""

    def __init__(
        self,
        thetas: Mapping[str, MetaInit],
        missing: Mapping[str, str] | None = None,
        options: EmojiTestOptions | None = None,
    ) -> None:
        """`missing` says why a θ that a table names is not among `thetas`."""
        self._thetas = thetas
        self._missing = missing or {}
        self._options = options or EmojiTestOptions()
        self._cache = FeatureCache()
        self._drawn: dict[str, Tensor] = {}
        self._trained: dict[tuple[str, str | None, int], Choices] = {}

    def judge(self, table: EmojiTable) -> ResultTable:
        """Return every method's figures at every size, and a note for each θ that is missing."""
        began = time.process_time()
        thetas = {name: self._thetas[name] for name in table.thetas if name in self._thetas}
        missing = [name for name in table.thetas if name not in (*thetas, *ALTERNATIVES)]
        notes = [self._missing.get(name, f"θ {name} is not there") for name in missing]
        if not thetas:
            return ResultTable(table.name, table.title, notes=tuple(notes))
        first = next(iter(thetas.values()))
        episodes = self._episodes(table, first)
        compared = self._learned(table, thetas, episodes)
        compared += self._baselines(table, thetas, episodes, notes)
        rows = [_row(c, pairs, episodes[pairs]) for pairs in episodes for c in compared]
        return ResultTable(
            table.name,
            table.title,
            len({e.stream for group in episodes.values() for e in group}),
            tuple(rows),
            _against_ridge(compared, episodes) if table.against_ridge else (),
            tuple(notes),
            tuple(_examples(table, compared, episodes)),
            setting=table.setting,
            cpu_s=time.process_time() - began,
        )

    def stability(self) -> ResultTable:
        """Judge extra inner steps on low-rank tenants: by the learner of the first low-rank θ there
        is, and by every other kind of learner."""
        title = "Extra inner steps: capped, rolled back where they do not help, gated"
        names = [name for name in ("emoji-lowrank-maml", "emoji-lowrank") if name in self._thetas]
        if not names:
            return ResultTable(STABILITY, title, notes=tuple(self._missing.values()))
        theta, table = self._thetas[names[0]], TABLES[0]
        plan = replace(self._options.plan, episodes=1, sizes=(STABILITY_PAIRS,))
        streams = self._streams(table, theta)
        (episodes,) = comparison.episodes_of(streams, plan).values()
        found = stability(theta, episodes, plan, self._options.extra_steps)
        note = f"θ {names[0]}, low-rank tenants, {STABILITY_PAIRS} pairs"
        return ResultTable(STABILITY, title, len(streams), notes=(note,), stability=tuple(found))

    def untuned(self) -> ResultTable:
        """Judge θs on transformed streams and on streams that change."""
        thetas = untuned_thetas(self._thetas)
        notes = [self._missing[name] for name in UNTUNED_THETAS if name in self._missing]
        return judge_untuned(thetas, self._cache, self._options.untuned, notes)

    def embeddings(self) -> ResultTable:
        """Judge a new θ on pairs of embeddings of unit norm."""
        plan = replace(self._options.plan, episodes=2)
        wanted = ("emoji-lowrank", "emoji-names")
        notes = [self._missing[name] for name in wanted if name in self._missing]
        return judge_embeddings(self._thetas, self._cache, plan, notes)

    def beyond(self) -> ResultTable:
        """Judge θs on vendors, concepts, families and languages that they were not trained on."""
        wanted = dict.fromkeys(each.theta for each in beyond_cases())
        notes = [self._missing[name] for name in wanted if name in self._missing]
        plan, tenants = self._options.untuned.plan, self._options.untuned.tenants

        def streams_of(table: EmojiTable, theta: MetaInit) -> list[RecordedStream]:
            return self._streams(table, theta)[: tenants if table.family else None]

        return judge_beyond(self._thetas, streams_of, plan, notes)

    def spoken(self) -> ResultTable:
        """Judge the θ of low-rank tenants on spoken names."""
        name, languages = "emoji-lowrank", SPOKEN_LANGUAGES[: 1 if self._options.quick else None]
        if name not in self._thetas:
            note = self._missing.get(name, f"θ {name} is not there")
            return ResultTable(SPOKEN, SPOKEN_TITLE, notes=(note,))
        encoder = load_encoder(SPOKEN_ENCODER, "audio")
        return judge_spoken(self._thetas[name], encoder, self._options.plan, languages)

    def _learned(
        self, table: EmojiTable, thetas: Mapping[str, MetaInit], episodes: Episodes
    ) -> list[_Compared]:
        compared, version = [], next(iter(thetas.values())).encoder_version
        for name, theta in thetas.items():
            own = episodes
            if theta.encoder_version != version:
                own = self._episodes(table, theta)
            methods = comparison.meta_learned(comparison.engine_for(theta, self._options.plan))
            compared += [
                _Compared(name, method, run, _scored(run, own), same_features=own is episodes)
                for method, run in methods.items()
            ]
        return compared

    def _baselines(
        self,
        table: EmojiTable,
        thetas: Mapping[str, MetaInit],
        episodes: Episodes,
        notes: list[str],
    ) -> list[_Compared]:
        first = next(iter(thetas.values()))
        choices = emoji_baselines.merged_choices(
            self._joint(table, first) if table.baselines == "all" else {},
            emoji_baselines.closed_form_choices(table, first),
            emoji_baselines.ceiling_choices(table, thetas, first),
        )
        compared = []
        for name, variants in choices.items():
            scores = {variant: _scored(run, episodes) for variant, run in variants.items()}
            best = max(scores, key=lambda variant: _recall(scores[variant]))
            if len(variants) > 1:
                notes.append(f"{name}: on {best}, the best of {len(variants)}")
            compared.append(_Compared(None, name, variants[best], scores[best]))
        return compared

    def _joint(self, table: EmojiTable, theta: MetaInit) -> Choices:
        key = (theta.encoder_version, table.family, theta.target_dim)
        if key not in self._trained:
            x_YRD, names = self._training_pictures(theta), self._training_names(table, theta)
            options = self._options
            self._trained[key] = emoji_baselines.trained_choices(
                lambda sizes: emoji_streams.training_source(table, theta, x_YRD, names, sizes),
                options.joint,
                options.plan.sizes,
                options.plan.seed,
            )
        return self._trained[key]

    def _training_pictures(self, theta: MetaInit) -> Tensor:
        assert theta.source_encoder is not None  # its source is pictures
        version = part_version(theta.source_encoder)
        if version not in self._drawn:
            seed = self._options.plan.seed
            features = cache_features(theta.source_encoder, theta.target_dim, seed)
            self._drawn[version] = features.x_YRD
        return self._drawn[version]

    def _training_names(self, table: EmojiTable, theta: MetaInit) -> NameFeatures | None:
        if table.family is not None:
            return None
        languages = self._languages(emoji_names.trained_languages())
        return emoji_streams.training_names(self._cache, theta, languages)

    def _episodes(self, table: EmojiTable, theta: MetaInit) -> Episodes:
        return comparison.episodes_of(self._streams(table, theta), self._options.plan)

    def _streams(self, table: EmojiTable, theta: MetaInit) -> list[RecordedStream]:
        concepts_N = emoji.drawn_by(table.vendor, table.split)
        pixels = emoji_streams.noisy(emoji.sheet(table.vendor)[concepts_N], table.noise, seed=0)
        name = f"{table.vendor} {table.split} {table.noise}"
        x_ND = self._cache.pictures(theta, name, pixels)
        if table.spaces:
            languages = self._languages(language_spaces.split_languages(trained=False))
            return emoji_streams.space_streams(concepts_N, x_ND, languages, theta.target_dim)
        if table.family is None:
            every = emoji_names.HELD_OUT_LANGUAGES
            if table.languages == "trained":
                every = emoji_names.trained_languages()
            languages = self._languages(every)
            return emoji_streams.language_streams(self._cache, theta, concepts_N, x_ND, languages)
        return emoji_streams.tenant_streams(
            concepts_N, x_ND, table.family, theta.target_dim, self._options.tenants
        )

    def _languages(self, every: Sequence[str]) -> list[str]:
        count = min(self._options.languages, len(every))
        return [every[int(i)] for i in np.linspace(0, len(every) - 1, count)]


def _scored(run: Method, episodes: Episodes) -> ScoresByPairs:
    return {pairs: scored(run, group) for pairs, group in episodes.items()}


def _recall(found: ScoresByPairs) -> float:
    return float(np.mean([scores["r_at_1"] for group in found.values() for scores in group]))


def _row(compared: _Compared, pairs: int, episodes: Sequence[MetaTestEpisode]) -> ResultRow:
    found = compared.found[pairs]
    return ResultRow(compared.theta, summarised(compared.method, pairs, episodes, found))


def _against_ridge(compared: Sequence[_Compared], episodes: Episodes) -> tuple[AgainstRidge, ...]:
    ridge = next(c.found for c in compared if c.method == "ridge")
    return tuple(
        AgainstRidge(
            c.theta,
            pairs,
            difference(group, c.found[pairs], ridge[pairs], "r_at_1"),
            difference(group, c.found[pairs], ridge[pairs], "loss"),
        )
        for pairs, group in episodes.items()
        for c in compared
        if c.method == "gated" and c.theta is not None
    )


def _examples(
    table: EmojiTable, compared: Sequence[_Compared], episodes: Episodes
) -> list[Example]:
    shown = {
        c.name: c.run
        for c in compared
        if c.same_features and c.method in ("gated", "Procrustes on shared", "ridge")
    }

    def look(episode: MetaTestEpisode, q: int) -> tuple[Shown, Shown]:
        index = int((episode.labels_Q or ())[q])
        picture = Picture(emoji.picture_png(index, table.vendor))
        if table.family is None:
            return picture, emoji_names.names_in(episode.stream)[index].name
        return picture, picture

    return examples_of(episodes[sorted(episodes)[len(episodes) // 2]], shown, look)
