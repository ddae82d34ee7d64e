"""The meta-test: hand-made streams whose right answers are known.

N = pairs of a stream, S = support pairs, Q = query pairs, B = streams in batch, Y = candidates
(concepts), R = rows (pictures of a concept), Z = slots (languages), D = source dim, E = target dim
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model.baselines import fine_tuning
from model.baselines.fine_tuning import FineTuning
from model.baselines.joint import JointMapping, JointRecipe
from model.baselines.ridge import fit_ridge
from model.baselines.shared import FirstDims
from model.emoji import baselines as emoji_baselines
from model.emoji import drawings as emoji
from model.emoji import judge_tables, language_spaces
from model.emoji import names as emoji_names
from model.emoji import streams as emoji_streams
from model.emoji.evaluate import shipped_thetas, tables_for
from model.emoji.judge_tables import EmojiTest, EmojiTestOptions, quick_options
from model.emoji.tables import ALTERNATIVES, COMMANDS, NAMES, TABLES, EmojiTable
from model.emoji.tenant_training import Features
from model.emoji.tenants import TENANT_SEED
from model.encoders.build import encoder_from, fresh_encoder_spec
from model.evaluate import comparison, methods
from model.evaluate.comparison import MetaTestPlan
from model.evaluate.episodes import GATE_PAIRS, MetaTestEpisode, cut_test_episode
from model.evaluate.intervals import t_interval
from model.evaluate.result_table import ResultRow, ResultTable, setting_summaries
from model.evaluate.scoring import (
    Figures,
    difference,
    episode_scores,
    method_figures,
    nearness,
    scored,
)
from model.evaluate.stability import stability
from model.mappings.mlp import Mlp
from model.mappings.numpy_mlp import apply_numpy
from model.meta.episodes import EpisodeSizes
from model.meta.recorded_streams import RecordedStream
from model.retrieval import euclidean_scores
from model.serving.engine import Engine
from model.theta.meta_init import MetaInit, fresh_meta_init
from model.theta.meta_init_file import SHIPPED, save_meta_init
from model.theta.part import PartSpec
from model.values.arrays import FloatArray
from model.values.episode import Adaptation, Episode

D, E = 6, 4


def normal(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stream(
    name: str, seed: int, n: int = 60, labels: tuple[str, ...] | None = None
) -> RecordedStream:
    """A linear stream of its own."""
    x_ND = normal(seed, n, D)
    return RecordedStream(name, x_ND, x_ND @ normal(seed + 1, D, E), np.arange(n), labels)


def episode(
    name: str = "s", seed: int = 0, labels: tuple[str, ...] | None = None
) -> MetaTestEpisode:
    made = cut_test_episode(stream(name, seed, labels=labels), 16, np.random.default_rng(seed), 20)
    assert made is not None
    return made


def perfect(episodes: Sequence[MetaTestEpisode]) -> list[FloatArray]:
    return [e.y_QE for e in episodes]


def blind(episodes: Sequence[MetaTestEpisode]) -> list[FloatArray]:
    return [normal(7 + i, *e.y_QE.shape) for i, e in enumerate(episodes)]


def theta(rate: float, kind: str = "maml", seed: int = 0, steps: int = 5) -> MetaInit:
    made = fresh_meta_init(D, E, 16, steps, rate, seed)
    return replace(made, learner=PartSpec({"kind": kind}, made.learner.tensors))


# --- scores ---


def test_a_perfect_method_finds_all_and_a_blind_one_what_luck_gives() -> None:
    episodes = [episode(f"s{i}", i) for i in range(30)]
    found = method_figures("perfect", perfect, 16, episodes).measures
    assert found["loss"].mean == 0.0
    assert {found[m].mean for m in ("r_at_1", "r_at_5", "mrr", "map", "ndcg")} == {1.0}
    luck = method_figures("blind", blind, 16, episodes).measures
    assert luck["r_at_1"].mean == pytest.approx(1 / 20, abs=0.05)
    assert luck["r_at_5"].mean == pytest.approx(5 / 20, abs=0.1)


def test_intervals_are_over_streams_and_not_over_episodes() -> None:
    episodes = [episode("a", 1), episode("a", 2), episode("a", 3), episode("b", 4)]
    each = scored(blind, episodes)
    found = method_figures("blind", blind, 16, episodes)
    losses = [s["loss"] for s in each]
    assert found.episodes == 4
    assert found.measures["loss"] == t_interval([float(np.mean(losses[:3])), losses[3]])
    assert found.measures["loss"].streams == 2


def test_labels_grade_what_is_found() -> None:
    """Query 0 finds candidate 2, of its label, before its own; the others find their own."""
    y_QE = np.array([[0.0], [10.0], [1.0]], np.float32)
    o_QE = np.array([[0.9], [10.0], [1.0]], np.float32)
    none = np.zeros((0, 1), np.float32)
    e = MetaTestEpisode("s", none, none, none, none, o_QE, y_QE, ("cat", "dog", "cat"))
    found = episode_scores(e, o_QE)
    assert found["r_at_1"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert found["map"] == pytest.approx(1.0)
    low, high = 1 / np.log2(3), 1.0
    query_0 = (1 * high + 2 * low) / (2 * high + 1 * low)
    assert found["ndcg"] == pytest.approx((query_0 + 1 + 1) / 3)
    unlabelled = episode_scores(replace(e, labels_Q=None), o_QE)
    assert unlabelled["map"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    apart = episode_scores(replace(e, labels_Q=("a", "b", "c")), o_QE)
    assert apart == unlabelled


def test_outputs_that_are_not_finite_find_nothing_and_have_no_loss() -> None:
    e = episode()
    found = episode_scores(e, np.full_like(e.y_QE, np.nan))
    assert np.isnan(found["loss"])
    assert found["r_at_1"] == found["r_at_5"] == 0.0


def test_nearness_is_the_euclidean_score() -> None:
    o, y = normal(0, 20, E), normal(1, 20, E)
    o[3, 1], o[4] = np.inf, 1e30
    ours, theirs = nearness(o, y), euclidean_scores(o, y)
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    np.testing.assert_allclose(ours[:3], theirs[:3], rtol=1e-12)


def test_a_difference_is_paired_by_episode() -> None:
    episodes = [episode(f"s{i}", i) for i in range(6)]
    theirs = scored(blind, episodes)
    ours = [{**s, "r_at_1": s["r_at_1"] + 0.25} for s in theirs]
    found = difference(episodes, ours, theirs, "r_at_1")
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


# --- what the gate lets through ---


def outputs_of(meta_init: MetaInit, episodes: list[MetaTestEpisode]) -> dict[str, list[FloatArray]]:
    engine = comparison.engine_for(meta_init, MetaTestPlan((16,)))
    return {name: run(episodes) for name, run in comparison.meta_learned(engine).items()}


def test_the_gate_takes_ridge_where_it_is_the_best() -> None:
    e = episode()
    found = outputs_of(theta(rate=1e-9), [e])
    x_ND, y_NE = np.concatenate([e.x_SD, e.x_gate_ND]), np.concatenate([e.y_SE, e.y_gate_NE])
    np.testing.assert_allclose(found["gated"][0], fit_ridge(x_ND, y_NE)(e.x_QD), atol=1e-3)
    assert np.abs(found["adapted"][0] - found["gated"][0]).max() > 0.1


def of_theta(rate: float) -> tuple[MetaInit, MetaTestEpisode]:
    """A stream that is θ's own mapping, so that nothing is better than θ; in θ's own units."""
    made = theta(rate)
    x = normal(3, 60, D)
    y = apply_numpy(made.mapping, x[:18], "gelu")
    size = (y - y.mean(0)).std()
    scaled = {"w2": made.mapping["w2"] / size, "b2": (made.mapping["b2"] - y.mean(0)) / size}
    made = replace(made, mapping=dict(made.mapping) | scaled, facts={"training": "stands for some"})
    y = apply_numpy(made.mapping, x, "gelu")
    s, g, q = slice(0, 16), slice(16, 16 + GATE_PAIRS), slice(40, 60)
    return made, MetaTestEpisode("s", x[s], y[s], x[g], y[g], x[q], y[q])


def test_the_gate_keeps_theta_where_adaptation_explodes() -> None:
    made, e = of_theta(rate=1e6)
    found = outputs_of(made, [replace(e, y_SE=e.y_SE + 1.0)])
    np.testing.assert_array_equal(found["gated"][0], found["theta"][0])
    assert not np.allclose(found["adapted"][0], found["theta"][0])


def test_the_gate_lets_an_adaptation_through_that_is_no_worse() -> None:
    made, e = of_theta(rate=0.0)
    found = outputs_of(made, [e])
    np.testing.assert_array_equal(found["gated"][0], found["adapted"][0])
    assert episode_scores(e, found["gated"][0])["r_at_1"] > 0.9


def test_episodes_are_adapted_once_for_all_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = Engine.adapt

    def counted(self: Engine, episodes: Sequence[Episode]) -> list[Adaptation]:
        calls.append(len(episodes))
        return real(self, episodes)

    monkeypatch.setattr(Engine, "adapt", counted)
    episodes = [episode("a", 1), episode("b", 2)]
    outputs_of(theta(0.1), episodes)
    assert calls == [2]


def test_the_method_for_as_many_pairs_is_taken() -> None:
    chosen = methods.by_pairs({16: perfect, 5: blind})
    assert chosen([episode()])[0] is not None
    np.testing.assert_array_equal(chosen([e := episode()])[0], e.y_QE)
    assert chosen([]) == []


# --- extra inner steps ---


def test_extra_steps_never_harm_and_would_without_the_guard() -> None:
    streams = [stream(f"s{i}", 10 * i) for i in range(5)]
    plan = MetaTestPlan((16,), 1, candidates=20)
    (episodes,) = comparison.episodes_of(streams, plan).values()
    rates = np.array([[0.3] * 4] * 4 + [[30.0] * 4], np.float32)  # the last step overshoots
    made = replace(theta(0.3), learner=PartSpec({"kind": "maml"}, {"rates": rates}))
    own, *others = stability(made, episodes, plan, extra_steps=25)
    assert (own.learner, own.steps, own.extra_steps, own.episodes) == ("maml (trained)", 5, 25, 5)
    assert own.blindly_worse > 0
    for found in (own, *others):
        assert found.worse_on_support == 0
        assert found.published_worse == 0
    assert {s.learner for s in others} >= {"maml", "anil", "adam", "r2d2"}
    assert [s.extra_steps for s in others if s.learner == "r2d2"] == [0]


# --- emoji streams and baselines ---


def test_whoever_knows_the_tenants_matrix_finds_everything() -> None:
    concepts_N = emoji.drawn_by(emoji.HELD_OUT_VENDOR, "train")[:150]
    x_ND = np.hstack([emoji.concept_vectors(16)[concepts_N], normal(0, 150, 8)])
    streams = emoji_streams.tenant_streams(concepts_N, x_ND, "linear", 16, tenants=3)
    episodes = comparison.episodes_of(streams, MetaTestPlan((5,), 1))[5]
    made, linear = tiny(16), table("neither-linear-16")
    variants = emoji_baselines.ceiling_choices(linear, {"t": made}, made)["ceiling"]
    assert list(variants) == ["the encoder's first 16 features"]
    found = method_figures("ceiling", next(iter(variants.values())), 5, episodes).measures
    assert found["r_at_1"].mean == 1.0
    assert found["loss"].mean < 1e-10
    assert emoji_streams.tenant_seed(streams[2].name) == TENANT_SEED + 2


def test_baselines_train_on_tenants_of_the_tables_family_and_on_no_test_concept() -> None:
    chosen, made = table("rotation"), tiny(16)
    concepts_Y = emoji_streams.training_concepts()
    assert {emoji.concepts()[v].split for v in concepts_Y} == {"train"}
    x_YRD = torch.tensor(emoji.concept_vectors(16)[concepts_Y]).unsqueeze(1)
    source = emoji_streams.training_source(chosen, made, x_YRD, None, EpisodeSizes(5, 5, 7))
    batch = source.draw(torch.Generator().manual_seed(0), 2)
    norm = batch.y_query_BQE.norm(dim=2)
    torch.testing.assert_close(norm, torch.full((2, 7), 4.0))  # rotated, so as long as they were
    assert batch.real_support_BS.all()
    with pytest.raises(ValueError, match="no training tenants of the family 'linear'"):
        emoji_streams.training_source(table("neither-linear-16"), made, x_YRD, None, EpisodeSizes())


def test_fine_tuning_all_supports_at_once_is_fine_tuning_each() -> None:
    start = JointMapping(Mlp(*map(torch.tensor, theta(0.1).mapping.values())), "gelu")
    tuning = FineTuning(start, rate=0.3, steps=7)
    episodes = [episode(f"s{i}", i) for i in range(3)]
    together = emoji_baselines.fine_tuned(tuning)(episodes)
    apart = methods.fitted(tuning.fit)(episodes)
    for ours, theirs in zip(together, apart, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_noise_is_the_same_every_time_and_none_leaves_pictures_alone() -> None:
    pixels = emoji.sheet("noto")[:3]
    assert emoji_streams.noisy(pixels, 0.0, 0) is pixels
    noisy = emoji_streams.noisy(pixels, 0.3, 0)
    np.testing.assert_array_equal(noisy, emoji_streams.noisy(pixels, 0.3, 0))
    assert np.abs(noisy.astype(int) - pixels).mean() > 10


def test_variants_of_a_baseline_stand_side_by_side() -> None:
    first = emoji_baselines.on_shared(FirstDims(2), "first")
    merged = emoji_baselines.merged_choices(
        first, emoji_baselines.on_shared(FirstDims(3), "second")
    )
    assert list(merged["ridge on shared"]) == ["first", "second"]


# --- emoji tables ---


def tiny(dim: int) -> MetaInit:
    """Pictures to vectors, untrained."""
    made = fresh_meta_init(24, dim, 8)
    encoder = fresh_encoder_spec("cnn/2", 24, seed=0, blocks=((2, True), (2, True), (2, True)))
    return replace(made, source_modality="image", source_encoder=encoder)


TINY = EmojiTestOptions(
    3, MetaTestPlan((5, 16), 1), 2, JointRecipe(steps=2, streams=2, hidden_dim=4), 3
)


def table(name: str) -> EmojiTable:
    return next(t for t in TABLES if t.name == name)


def test_a_table_has_every_method_at_every_size_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    concepts_Y = emoji_streams.training_concepts()
    x_YRD = torch.randn(len(concepts_Y), 1, 24)
    drawn = Features(x_YRD, torch.tensor(emoji.concept_vectors(16)[concepts_Y]))
    monkeypatch.setattr(judge_tables, "cache_features", lambda spec, dim, seed: drawn)
    monkeypatch.setattr(
        fine_tuning, "choose_fine_tuning", partial(fine_tuning.choose_fine_tuning, steps=(1, 2))
    )
    thetas = ("emoji-lowrank", "emoji-both")
    chosen = replace(table("rotation"), thetas=thetas)
    test = EmojiTest({"emoji-both": tiny(16)}, {"emoji-lowrank": "train it"}, TINY)
    judged = test.judge(chosen)
    assert judged.notes[0] == "train it"
    assert judged.streams == 3
    names = ["emoji-both gated", "emoji-both adapted", "emoji-both unadapted"]
    names += ["joint", "joint + fine-tuning", "ridge on shared", "Procrustes on shared"]
    names += ["ridge", "random", "ceiling"]
    assert [r.name for r in judged.rows] == 2 * names
    assert [r.figures.pairs for r in judged.rows] == [5] * len(names) + [16] * len(names)
    assert all(r.figures.measures["r_at_1"].streams == 3 for r in judged.rows)
    assert len(judged.examples) == 3
    again = EmojiTest({"emoji-both": tiny(16)}, {}, TINY).judge(chosen)
    assert again.rows == judged.rows


def test_what_the_gate_lets_through_is_compared_with_ridge() -> None:
    judged = EmojiTest({"emoji-both": tiny(16)}, {}, TINY).judge(table("neither-linear-16"))
    assert [a.pairs for a in judged.against_ridge] == [5, 16]
    means = {r.name: r.r_at_1.mean for r in judged.rows if r.figures.pairs == 5}
    gap = means["emoji-both gated"] - means["ridge"]
    assert judged.against_ridge[0].r_at_1.mean == pytest.approx(gap)


def test_a_table_without_its_theta_is_a_note() -> None:
    judged = EmojiTest({}, {"emoji-lowrank": "a", "emoji-lowrank-maml": "b"}).judge(TABLES[0])
    assert (judged.rows, judged.notes) == ((), ("a", "b"))
    assert EmojiTest({}).stability().stability == ()


def test_thetas_that_are_not_there_or_cannot_be_used_name_the_command(tmp_path: Path) -> None:
    save_meta_init(tiny(16), tmp_path / "emoji-both.safetensors")
    (tmp_path / "emoji-lowrank.safetensors").write_bytes(b"no")
    found, missing = shipped_thetas(tmp_path)
    assert list(found) == ["emoji-both"]
    assert set(missing) == set(COMMANDS) - {"emoji-both"}
    assert "cannot be used" in missing["emoji-lowrank"]
    assert "is not there" in missing["emoji-names"]
    for name, line in missing.items():
        assert f"{COMMANDS[name]} --out {name}.safetensors" in line


def test_a_theta_is_judged_on_the_tables_that_it_fits() -> None:
    chosen = tables_for(tiny(16), "mine")
    assert {t.dim for t in chosen} == {16}
    assert {t.thetas for t in chosen} == {("mine",)}
    assert tables_for(fresh_meta_init(24, 16), "vectors") == ()


def test_tables_have_names_of_their_own_and_thetas_that_are_known() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {t for table in TABLES for t in table.thetas} == {*COMMANDS, *ALTERNATIVES}
    assert tuple(COMMANDS) == SHIPPED


def test_languages_are_streams_of_names() -> None:
    text = fresh_encoder_spec("char-gru/1", 24, seed=0)
    made = replace(tiny(24), target_modality="text", target_encoder=text)
    chosen = replace(table("names-held-out"), baselines="closed forms")
    judged = EmojiTest({"emoji-names": made}, {}, TINY).judge(chosen)
    assert judged.streams == 2
    assert {e.stream for e in judged.examples} <= set(emoji_names.HELD_OUT_LANGUAGES)
    name = judged.examples[0].target
    assert isinstance(name, str)
    assert name in {n.name for n in emoji_names.names_in(judged.examples[0].stream).values()}
    assert "encoders as they are" in {r.name for r in judged.rows}


def test_languages_that_nothing_was_trained_on_are_streams_in_spaces_of_their_own() -> None:
    chosen = replace(table("languages-16"), thetas=("mine",))
    judged = EmojiTest({"mine": tiny(16)}, {}, TINY).judge(chosen)
    assert judged.streams == 2
    others = language_spaces.split_languages(trained=False)
    assert {e.stream for e in judged.examples} <= set(others)
    assert {"mine gated", "ridge", "random"} <= {r.name for r in judged.rows}
    assert {a.theta for a in judged.against_ridge} == {"mine"}


def test_training_names_stand_at_their_concepts() -> None:
    text = fresh_encoder_spec("char-gru/1", 24, seed=0)
    made = replace(tiny(24), target_modality="text", target_encoder=text)
    names = emoji_streams.training_names(emoji_streams.FeatureCache(), made, ["de"])
    concepts_Y = emoji_streams.training_concepts()
    known = emoji_names.names_in("de")
    assert names.known_ZY[0].tolist() == [c in known for c in concepts_Y.tolist()]
    v = int(names.known_ZY[0].nonzero()[9])
    encoder = encoder_from(text, "text", 24, torch.device("cpu"))
    own = encoder.encode([encoder.prepare(known[int(concepts_Y[v])].name)])
    torch.testing.assert_close(names.y_ZYE[0, v], own[0])


# --- the summary ---


def test_the_summary_takes_the_best_theta_of_each_setting() -> None:
    rows = []
    for name, recall in (("a", 0.5), ("b", 0.7)):
        measures = dict.fromkeys(("r_at_1",), t_interval([recall, recall]))
        rows.append(ResultRow(name, Figures("gated", 5, 2, measures)))
    tables = [ResultTable("t", "T", 2, tuple(rows), setting="low-rank"), ResultTable("u", "U")]
    (found,) = setting_summaries(tables)
    assert found.best == (0.7,)
    assert found.methods == {"a gated": (0.5,), "b gated": (0.7,)}


def test_quick_options_are_small_and_keep_the_seed() -> None:
    assert quick_options(7).plan.seed == 7
    assert quick_options().tenants < EmojiTestOptions().tenants
