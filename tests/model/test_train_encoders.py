"""Training encoders on streams: they learn what streams never trained on can be told apart by."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import Ridge
from torch import Tensor

from model.baselines.ridge import fit_ridge
from model.encoders import audio, image, text, vector, video
from model.encoders.build import encoder_from, fresh_encoder_spec
from model.meta.encoders.content_episodes import (
    ContentEpisodes,
    Contents,
    ContentStream,
    episodes_of_features,
)
from model.meta.encoders.content_store import ContentStore, Room, StoredSide
from model.meta.encoders.nets import Nets, optimiser_of
from model.meta.encoders.stream_heads import HeadLoss, predictions
from model.meta.encoders.trainable import CPU, Pass, features, parts_of, trainable
from model.meta.encoders.trainable_cnn import TrainableCnn, blocks_for
from model.meta.encoders.training import EncodersRecipe, TrainedEncoders, train_encoders
from model.meta.episodes import EpisodeBatch
from model.meta.progress import Saving
from model.meta.state import TrainingState
from model.retrieval import cosine_scores, euclidean_scores, relevance_from_labels, scores_of
from model.theta.meta_init import Modality
from model.theta.part import PartSpec
from model.values.contents import AudioClip, Content, VideoClip
from model.values.errors import BadCheckpoint, BadContent, BadData, BadMetaInit, Diverged

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator], tuple[Content, Array]]
"""A content and the latent numbers behind it."""
RECIPE = EncodersRecipe(steps=60, streams=6, rate=4e-3, validate_every=20, validation_streams=12)
SUPPORT, QUERY = 12, 16


@dataclass(frozen=True)
class Side:
    modality: Modality
    spec: PartSpec | None
    dim: int

    def encode(self, contents: Sequence[Content]) -> NDArray[np.float32]:
        encoder = encoder_from(self.spec, self.modality, self.dim, CPU)
        return encoder.encode([encoder.prepare(c) for c in contents]).numpy()


@dataclass(frozen=True)
class Stream:
    source: list[Content]
    target: list[Content]
    meaning: NDArray[np.int64] | None = None
    """What is found when a target of the same meaning is; by default each means something else."""


def circle(turn: float, harmonics: int = 3) -> Array:
    """A point of a circle, so that near turns are near and no turn is the last."""
    angles = 2.0 * np.pi * turn * np.arange(1, harmonics + 1)
    return np.concatenate([np.cos(angles), np.sin(angles)])


def tone(rng: np.random.Generator) -> tuple[Content, Array]:
    turn = rng.random()
    seconds = np.arange(int(rng.uniform(0.08, 0.2) * 16_000)) / 16_000
    wave = np.sin(2.0 * np.pi * (200.0 * 16.0**turn * seconds + rng.random()))
    wave += 0.3 * rng.standard_normal(len(wave))
    pcm = (4_000.0 * wave).astype("<i2").tobytes()
    return AudioClip(pcm, "pcm_s16le", 16_000), circle(turn)


def words(meanings: int, synonyms: int, seed: int) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [
        ["".join(rng.choice(list("abdeghiklmnoprstu"), 5)) for _ in range(synonyms)]
        for _ in range(meanings)
    ]


ADJECTIVES, NOUNS = words(6, 3, 1), words(6, 3, 2)
SENSES = np.random.default_rng(3).standard_normal((2, 6, 4))


def phrase(rng: np.random.Generator) -> tuple[Content, Array]:
    a, n = rng.integers(6, size=2)
    written = f"{rng.choice(ADJECTIVES[a])} {rng.choice(NOUNS[n])}"
    return written, np.concatenate([SENSES[0, a], SENSES[1, n]])


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def spot(x: float, y: float, rng: np.random.Generator) -> bytes:
    """A spot of any colour at a place (0 to 7) of an 8 × 8 picture with noise."""
    rows, columns = np.mgrid[:8, :8]
    ink = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 1.5)[:, :, None] * rng.uniform(
        80, 250, 3
    )
    return png(np.clip(255.0 - ink - rng.uniform(0, 60, (8, 8, 3)), 0, 255).astype(np.uint8))


def picture(rng: np.random.Generator) -> tuple[Content, Array]:
    x, y = rng.uniform(0.0, 7.0, 2)
    return spot(x, y, rng), np.concatenate([circle(x / 14.0, 2), circle(y / 14.0, 2)])


def clip(rng: np.random.Generator) -> tuple[Content, Array]:
    """A spot that moves for three frames; what counts is its way, not its place."""
    turn, at = rng.random(), rng.uniform(2.5, 4.5, 2)
    step = 2.0 * np.array([np.cos(2.0 * np.pi * turn), np.sin(2.0 * np.pi * turn)])
    places = [at + (i - 1) * step for i in range(3)]
    return VideoClip(tuple(spot(x, y, rng) for x, y in places)), circle(turn, 2)


def rotated(draw: Draw, streams: int, seed: int, pairs: int = SUPPORT + QUERY) -> list[Stream]:
    """Streams whose targets are latent numbers under a rotation of their own."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(streams):
        drawn = [draw(rng) for _ in range(pairs)]
        d = len(drawn[0][1])
        turn_DD = np.linalg.qr(rng.standard_normal((d, d)))[0]
        targets: list[Content] = [(z @ turn_DD).astype(np.float32) for _, z in drawn]
        found.append(Stream([c for c, _ in drawn], targets))
    return found


def contents_of(
    source: Side, target: Side, train: Sequence[Stream], validation: Sequence[Stream] = ()
) -> Contents:
    room = Room()
    sides = []
    for side in (source, target):
        encoder = encoder_from(side.spec, side.modality, side.dim, CPU)
        sides.append(StoredSide(encoder, room, features=side.spec is None))

    def numbered(name: str, stream: Stream) -> ContentStream:
        source_N, target_N = (
            side.add([side.encoder.prepare(c) for c in contents])
            for side, contents in zip(sides, (stream.source, stream.target), strict=True)
        )
        return ContentStream(name, source_N, target_N, np.arange(len(source_N)))

    def episodes(kind: str, streams: Sequence[Stream]) -> ContentEpisodes:
        numbers = [numbered(f"{kind}{i}", s) for i, s in enumerate(streams)]
        return ContentEpisodes(numbers, RECIPE.episode_sizes())

    judged = episodes("validation", validation) if validation else None
    return Contents(sides[0].store, sides[1].store, episodes("train", train), judged)


def mrr(source: Side, target: Side, streams: Sequence[Stream]) -> float:
    """Of ridge regression from the first pairs to the others, at the penalty that does best."""
    encoded = [(source.encode(s.source), target.encode(s.target)) for s in streams]
    found = []
    for penalty in (0.1, 1.0, 10.0):
        each = []
        for (x_ND, y_NE), stream in zip(encoded, streams, strict=True):
            ridge = fit_ridge(x_ND[:SUPPORT], y_NE[:SUPPORT], penalty)
            scores = euclidean_scores(ridge(x_ND[SUPPORT:]), y_NE[SUPPORT:])
            meaning_N = np.arange(len(x_ND)) if stream.meaning is None else stream.meaning
            relevance = relevance_from_labels(meaning_N[SUPPORT:], meaning_N[SUPPORT:])
            each.append(float(scores_of(scores, relevance).mrr))
        found.append(float(np.mean(each)))
    return max(found)


def small_cnn(dim: int) -> PartSpec:
    return fresh_encoder_spec(image.KIND, dim, 0, side=8, blocks=blocks_for(8, (16, 32)))


SOURCES: dict[Modality, tuple[Draw, PartSpec]] = {
    "audio": (tone, fresh_encoder_spec(audio.KIND, 16, 0, bands=32, channels=(8, 16, 16))),
    "text": (phrase, fresh_encoder_spec(text.KIND, 16, 0, buckets=512, width=16, hidden=16)),
    "image": (picture, small_cnn(16)),
    "video": (
        clip,
        fresh_encoder_spec(video.KIND, 16, 0, frame_dim=16, hidden=16, frame=small_cnn(16)),
    ),
}


@pytest.mark.parametrize("modality", list(SOURCES))
def test_a_trained_encoder_does_far_better_on_streams_never_trained_on(modality: Modality) -> None:
    draw, spec = SOURCES[modality]
    train, validation, test = (rotated(draw, n, seed) for n, seed in ((30, 1), (8, 2), (16, 3)))
    untrained, target = Side(modality, spec, 16), vectors(test)
    found = train_encoders(contents_of(untrained, target, train, validation), spec, None, RECIPE)
    assert found.target is None
    before = mrr(untrained, target, test)
    after = mrr(replace(untrained, spec=found.source), target, test)
    assert after > before + 0.25
    assert after > 0.6  # and guessing gives 0.21
    history = found.progress.history
    assert min(r["validation_loss"] for r in history) == found.progress.best_loss
    assert history[0]["step"] == 0.0


def vectors(streams: Sequence[Stream]) -> Side:
    first = streams[0].target[0]
    assert isinstance(first, np.ndarray)
    return Side("vector", None, len(first))


MEANINGS = 12
NAMES = words(MEANINGS, 2, 4)


def named(streams: int, seed: int) -> list[Stream]:
    """A spot on a ring, and a name for how far round it is; in each stream the names begin
    elsewhere. Neither side's features are given."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(streams):
        begin = rng.integers(MEANINGS)
        meaning_N = rng.integers(MEANINGS, size=SUPPORT + QUERY)
        x_N, y_N = (3.5 + 2.8 * f(2.0 * np.pi * meaning_N / MEANINGS) for f in (np.cos, np.sin))
        pictures: list[Content] = [spot(x, y, rng) for x, y in zip(x_N, y_N, strict=True)]
        texts: list[Content] = [str(rng.choice(NAMES[(m + begin) % MEANINGS])) for m in meaning_N]
        found.append(Stream(pictures, texts, meaning_N))
    return found


def test_both_sides_are_trained_together_and_do_not_collapse() -> None:
    train, validation, test = named(60, 1), named(8, 2), named(16, 3)
    source = Side("image", SOURCES["image"][1], 16)
    target = Side("text", SOURCES["text"][1], 16)
    recipe = replace(RECIPE, steps=150)
    data = contents_of(source, target, train, validation)
    found = train_encoders(data, source.spec, target.spec, recipe)
    pictures, texts = replace(source, spec=found.source), replace(target, spec=found.target)
    assert mrr(pictures, texts, test) > mrr(source, target, test) + 0.2
    names_RX = texts.encode([w for synonyms in NAMES for w in synonyms]) / 4.0
    cosine_RR = names_RX @ names_RX.T
    assert np.median(cosine_RR) < 0.3
    assert (np.linalg.svd(names_RX, compute_uv=False) > 0.5).sum() > 2


def random_batch(seed: int = 0) -> EpisodeBatch:
    rng = torch.Generator().manual_seed(seed)

    def made(n: int, d: int) -> Tensor:
        return torch.randn(3, n, d, generator=rng)

    real_BS = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    real_BQ = torch.arange(5) < torch.tensor([5, 5, 3])[:, None]
    return EpisodeBatch(made(7, 6), made(7, 4), real_BS, made(5, 6), made(5, 4), real_BQ)


def test_heads_are_ridge_regressions_of_the_support() -> None:
    batch, penalty = random_batch(), 0.3
    o_BQE = predictions(batch, torch.tensor(penalty).log())
    for t in range(3):
        real_S = batch.real_support_BS[t]
        x_SD, x_QD = (
            np.c_[x.numpy() / 6.0**0.5, np.ones(len(x))]
            for x in (batch.x_support_BSD[t][real_S], batch.x_query_BQD[t])
        )
        oracle = Ridge(penalty, fit_intercept=False).fit(x_SD, batch.y_support_BSE[t][real_S])
        np.testing.assert_allclose(o_BQE[t], oracle.predict(x_QD), rtol=1e-4, atol=1e-5)


NONE_SAME = torch.eye(5, dtype=torch.bool).expand(3, -1, -1)


@pytest.mark.parametrize("target_is_trained", [False, True])
def test_padding_changes_no_loss_and_gets_no_gradient(target_is_trained: bool) -> None:
    batch, log_penalty = random_batch(), torch.tensor(-1.0)
    loss = HeadLoss(target_is_trained)
    padded = [t.clone() for t in batch]
    sides = ((0, 2), (1, 2), (3, 5), (4, 5))
    for side, real in sides:
        padded[side][~padded[real]] = 1e4
        padded[side].requires_grad_()
    loss_B = loss(EpisodeBatch(*padded), NONE_SAME, log_penalty)
    torch.testing.assert_close(loss_B.detach(), loss(batch, NONE_SAME, log_penalty))
    torch.autograd.backward(loss_B.sum())
    for side, real in sides:
        gradient = padded[side].grad
        assert gradient is not None
        assert not gradient[~padded[real]].any()
        assert gradient[padded[real]].any()
    if target_is_trained:  # else all streams' variance is in it
        cut = EpisodeBatch(*(t[2:, :n] for t, n in zip(batch, (2, 2, 2, 3, 3, 3), strict=True)))
        apart_B = loss(cut, NONE_SAME[2:, :3, :3], log_penalty)
        torch.testing.assert_close(loss_B[2:].detach(), apart_B)


def test_a_trained_target_is_judged_by_both_directions_of_search_among_other_contents() -> None:
    batch, log_penalty = random_batch(), torch.tensor(-1.0)
    same_BQQ = NONE_SAME.clone()
    same_BQQ[:, 0, 1] = same_BQQ[:, 1, 0] = True
    loss_B = HeadLoss(True, temperature=0.5)(batch, same_BQQ, log_penalty)
    o_BQE = predictions(batch, log_penalty).numpy()
    for t, n in enumerate((5, 5, 3)):
        cosine = cosine_scores(o_BQE[t, :n], batch.y_query_BQE[t, :n].numpy())
        odds = np.exp(cosine / 0.5)
        odds[[0, 1], [1, 0]] = 0.0
        forward, backward = (-np.log(np.diag(odds) / odds.sum(a)) for a in (0, 1))
        assert loss_B[t] == pytest.approx((forward.mean() + backward.mean()) / 2.0, rel=1e-4)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
def test_one_feature_for_every_target_is_no_better_than_guessing(spread: float) -> None:
    batch = random_batch()
    constant = batch._replace(
        y_support_BSE=torch.ones(3, 7, 4) + spread * batch.y_support_BSE,
        y_query_BQE=torch.ones(3, 5, 4) + spread * batch.y_query_BQE,
    )
    loss_B = HeadLoss(target_is_trained=True)(constant, NONE_SAME, torch.tensor(-1.0))
    torch.testing.assert_close(loss_B, torch.tensor([5.0, 5.0, 3.0]).log(), rtol=0.0, atol=0.02)


def test_gradients_in_parts_are_those_of_one_pass() -> None:
    rng = np.random.default_rng(0)
    modalities: tuple[Modality, ...] = ("text", "audio")
    for modality in modalities:
        draw, spec = SOURCES[modality]
        side = encoder_from(spec, modality, 16, CPU)
        contents = [side.prepare(draw(rng)[0]) for _ in range(9)]
        weight_RX = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
        gradients = []
        for most in (2**30, 3 * max(len(c) for c in contents), 1):
            net = trainable(spec)
            net.most = most
            through = Pass(net, contents)
            torch.testing.assert_close(
                through.features_RX.detach(), side.encode(contents), rtol=1e-4, atol=1e-5
            )
            torch.autograd.backward((through.features_RX * weight_RX).sum())
            through.backward()
            gradients.append(
                {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
            )
        assert len(gradients[0]) == len(list(net.parameters()))
        for other in gradients[1:]:
            torch.testing.assert_close(gradients[0], other, rtol=1e-3, atol=1e-4)


def test_parts_hold_every_content_once_and_no_more_than_they_may() -> None:
    contents = [np.zeros(n) for n in (3, 100, 7, 7, 1, 30, 9)]
    assert parts_of(contents, 700) == [list(range(7))]
    parts = parts_of(contents, 40)
    assert sorted(place for part in parts for place in part) == list(range(7))
    sizes = [len(part) * max(len(contents[p]) for p in part) for part in parts]
    assert [s for s in sizes if s > 40] == [100]
    assert parts == [[4, 0, 2, 3], [6], [5], [1]]


@pytest.mark.parametrize("modality", ["image", "video", "audio", "text", "vector"])
def test_a_net_is_the_encoder_that_its_spec_makes(modality: Modality) -> None:
    rng = np.random.default_rng(5)
    contents: list[Content]
    if modality == "vector":
        spec = fresh_encoder_spec(vector.KIND, 16, 0, input_dim=5, normalise=1)
        contents = [rng.standard_normal(5) for _ in range(6)]
    else:
        draw, spec = SOURCES[modality]
        contents = [draw(rng)[0] for _ in range(6)]
    encoder = encoder_from(spec, modality, 16, CPU)
    prepared = [encoder.prepare(c) for c in contents]
    net = trainable(spec)
    net.train()
    for _ in range(3):  # batch normalisation, where there is any, gets statistics of its own
        net(prepared)
    net.eval()
    again = encoder_from(net.spec(), modality, 16, CPU).encode(prepared)
    torch.testing.assert_close(features(net, prepared), again, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("side", "left"), [(8, 4), (32, 4), (33, 4), (64, 4), (100, 6), (256, 4)])
def test_blocks_suit_the_side(side: int, left: int) -> None:
    spec = fresh_encoder_spec(image.KIND, 8, 0, side=side, blocks=blocks_for(side, (2,)))
    net = TrainableCnn(spec)
    assert net.sizes.flat == 2 * left**2
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 8)


def same(a: TrainedEncoders, b: TrainedEncoders) -> bool:
    assert a.source is not None
    assert b.source is not None
    return all(np.array_equal(t, b.source.tensors[n]) for n, t in a.source.tensors.items())


@pytest.fixture(scope="module")
def texts() -> Contents:
    source = Side("text", SOURCES["text"][1], 16)
    train = rotated(phrase, 8, 1, 12)
    return contents_of(source, vectors(train), train, rotated(phrase, 4, 2, 12))


SHORT = replace(RECIPE, steps=12, validate_every=4, streams=3)
TEXT = SOURCES["text"][1]


def test_training_is_a_function_of_its_arguments(texts: Contents) -> None:
    one = train_encoders(texts, TEXT, None, SHORT)
    torch.manual_seed(99)
    again = train_encoders(texts, TEXT, None, SHORT)
    assert same(one, again)
    assert not same(one, train_encoders(texts, TEXT, None, replace(SHORT, seed=1)))
    assert one.source is not None
    for tensor in one.source.tensors.values():
        np.testing.assert_array_equal(tensor, tensor.astype(np.float16).astype(np.float32))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [2, 5, 11])
def test_a_killed_training_goes_on_to_the_same_weights(
    texts: Contents, tmp_path: Path, at: int
) -> None:
    saving, steps = Saving(tmp_path / "t.encoders", 3), []

    def kill(progress: object) -> None:
        steps.append(progress)
        if len(steps) == at:
            raise Killed

    with pytest.raises(Killed):
        train_encoders(texts, TEXT, None, SHORT, saving, kill)
    continued = train_encoders(texts, TEXT, None, SHORT, saving)
    whole = train_encoders(texts, TEXT, None, SHORT)
    assert same(continued, whole)
    assert continued.progress == whole.progress
    steps.clear()
    assert same(whole, train_encoders(texts, TEXT, None, SHORT, saving, steps.append))
    assert not steps  # what is finished is not trained again


def test_a_checkpoint_of_other_contents_weights_or_recipe_is_refused(
    texts: Contents, tmp_path: Path
) -> None:
    saving = Saving(tmp_path / "t.encoders", 3)
    train_encoders(texts, TEXT, None, SHORT, saving)
    source = Side("text", TEXT, 16)
    train = rotated(phrase, 8, 7, 12)
    other = contents_of(source, vectors(train), train, rotated(phrase, 4, 2, 12))
    weights = fresh_encoder_spec(text.KIND, 16, 1, buckets=512, width=16, hidden=16)
    for data, spec, recipe, names in (
        (other, TEXT, SHORT, "contents"),
        (texts, weights, SHORT, "source.weights"),
        (texts, TEXT, replace(SHORT, rate=1.0), "recipe.rate"),
    ):
        with pytest.raises(BadCheckpoint, match=names):
            train_encoders(data, spec, None, recipe, saving)


def test_patience_ends_a_training_that_gets_no_better_and_keeps_the_best(texts: Contents) -> None:
    idle = replace(SHORT, rate=0.0, log_penalty_rate=0.0, patience=2)
    found = train_encoders(texts, TEXT, None, idle)
    assert (found.progress.ended, found.progress.step) == ("patience", 8)
    assert found.progress.best_step == 0
    assert found.source is not None
    begun = TEXT.rounded().tensors
    assert all(np.array_equal(t, begun[n]) for n, t in found.source.tensors.items())


def test_the_best_nets_are_those_of_the_lowest_validation_loss() -> None:
    nets = Nets(TEXT, None, 1.0)
    state = TrainingState(nets, optimiser_of(nets, 1.0, 0.0, 1.0))
    for at, loss in enumerate([3.0, 1.0, float("nan"), 2.0, 1.0]):
        state.progress.step = at
        with torch.no_grad():
            nets.log_penalty.fill_(at)
        state.judge(loss, patience=3)
    assert state.best.log_penalty.item() == 1.0
    assert (state.progress.best_loss, state.progress.best_step) == (1.0, 1)
    assert state.progress.ended == "patience"


def test_without_validation_streams_all_steps_are_done(texts: Contents) -> None:
    found = train_encoders(replace(texts, validation=None), TEXT, None, SHORT)
    assert (found.progress.step, found.progress.ended) == (SHORT.steps, "steps")
    assert found.progress.best_loss is None


def test_what_cannot_be_trained_is_refused(texts: Contents) -> None:
    with pytest.raises(BadData, match="neither source nor target"):
        train_encoders(texts, None, None, SHORT)
    lookup = fresh_encoder_spec(image.KIND, 8, 0, side=8, blocks=blocks_for(8, (4,)), lookup=(5, 6))
    with pytest.raises(BadMetaInit, match="lookup"):
        trainable(lookup)
    with pytest.raises(BadMetaInit, match="'other'"):
        trainable(PartSpec({"kind": "other"}))
    broken = {**TEXT.tensors, "linear.bias": np.full(16, np.nan, np.float32)}
    with pytest.raises(Diverged, match="10 outer steps in a row"):
        train_encoders(texts, PartSpec(TEXT.config, broken), None, SHORT)


def test_contents_beyond_the_room_are_refused_and_bad_ones_as_ever() -> None:
    encoder = encoder_from(TEXT, "text", 16, CPU)
    side = StoredSide(encoder, Room(4 * (256 + 4 * 4) - 1), features=False)
    prepared = [side.encoder.prepare(w) for w in ("abcd", "efgh", "abcd", "ijkl", "mnop")]
    assert side.add(prepared[:4]).tolist() == [0, 1, 0, 2]
    with pytest.raises(BadData, match="MiB of memory"):
        side.add(prepared[4:])
    with pytest.raises(BadContent) as refused:
        side.encoder.prepare("  ")
    assert refused.value.reason == "empty_text"


def test_contents_that_occur_often_and_padding_go_through_the_net_once() -> None:
    room = Room()
    source, target = ContentStore(room), ContentStore(room)
    encoder = encoder_from(TEXT, "text", 16, CPU)
    source_N = source.add([encoder.prepare(w) for w in ("one", "two", "three")])
    target_N = target.add([np.full(2, n, np.float32) for n in range(3)])
    stream = ContentStream("s", source_N, target_N, np.arange(3))
    sizes = replace(RECIPE, min_support=2).episode_sizes()
    contents = Contents(source, target, ContentEpisodes([stream], sizes))
    numbers = contents.train.draw(torch.Generator().manual_seed(0), 4)
    net, seen = trainable(TEXT), []
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    batch, _ = episodes_of_features(contents, numbers, net, 2.0)
    assert seen == [3]
    for real, x, y, number in (
        (
            batch.real_support_BS,
            batch.x_support_BSD,
            batch.y_support_BSE,
            numbers.source_support_BS,
        ),
        (batch.real_query_BQ, batch.x_query_BQD, batch.y_query_BQE, numbers.source_query_BQ),
    ):
        which = number[real]
        expected = features(net, source.take(which))
        torch.testing.assert_close(x[real].detach(), expected)
        torch.testing.assert_close(y[real], which[:, None].expand(-1, 2) / 2.0)
