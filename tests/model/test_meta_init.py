"""θ as a value and as a file."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save as write_safetensors

from model.encoders.image import config_of
from model.theta.meta_init import READINGS, MetaInit, fresh_meta_init, usual_sources_of
from model.theta.meta_init_file import (
    FORMAT,
    load_meta_init,
    meta_init_from_bytes,
    meta_init_to_bytes,
    save_meta_init,
    shipped,
)
from model.theta.part import PartSpec
from model.values.errors import BadMetaInit

THETA = fresh_meta_init(5, 3, hidden_dim=4, steps=2)


def learner(rates: NDArray[np.floating[Any]]) -> PartSpec:
    return PartSpec({"kind": "maml"}, {"rates": cast(Any, rates)})


def with_encoder() -> MetaInit:
    config = config_of(((2, True),), side=4, dim=5)
    shapes = {"conv0.weight": (2, 3, 3, 3), "conv0.bias": (2,)}
    shapes |= {"linear.weight": (5, 8), "linear.bias": (5,)}
    tensors = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
    encoder = PartSpec(config, tensors)
    return dataclasses.replace(THETA, source_modality="image", source_encoder=encoder)


def with_usual_sources() -> MetaInit:
    x_RD = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    return dataclasses.replace(THETA, usual_sources=usual_sources_of(3.0 * x_RD + 2.0))


@pytest.mark.parametrize(
    "theta", [THETA, with_encoder(), with_usual_sources()], ids=["vectors", "pictures", "usual"]
)
def test_what_is_saved_is_loaded_and_saved_the_same(theta: MetaInit, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save_meta_init(theta, first)
    loaded = load_meta_init(first)
    save_meta_init(loaded, second)
    assert first.read_bytes() == second.read_bytes()
    assert loaded.content_hash == theta.content_hash
    assert loaded.encoder_version == theta.encoder_version
    assert loaded.version == theta.version
    assert np.array_equal(loaded.learner.tensors["rates"], theta.learner.tensors["rates"])
    assert loaded.header() == theta.header()
    for name, tensor in theta.mapping.items():
        assert np.array_equal(loaded.mapping[name], tensor)


def test_what_float16_can_hold_takes_half_the_room_and_comes_back_the_same() -> None:
    rounded = {n: t.astype(np.float16).astype(np.float32) for n, t in THETA.mapping.items()}
    theta = dataclasses.replace(THETA, mapping=rounded)
    loaded = meta_init_from_bytes(meta_init_to_bytes(theta), "here")
    assert loaded.content_hash == theta.content_hash
    assert all(tensor.dtype == np.float32 for tensor in loaded.mapping.values())
    saved = len(meta_init_to_bytes(THETA)) - len(meta_init_to_bytes(theta))
    assert saved >= 2 * (rounded["w1"].size + rounded["w2"].size)


def test_usual_sources_are_mean_and_root_mean_squared_distance() -> None:
    part = usual_sources_of(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32))
    assert part is not None
    assert part.tensors["mean"].tolist() == [2.0, 4.0]
    assert part.tensors["spread"].tolist() == [np.float32(np.sqrt((1 + 4 + 1 + 4) / 4))]
    assert usual_sources_of(np.ones((3, 2), np.float32)) is None
    assert with_usual_sources().encoder_version == THETA.encoder_version
    assert with_usual_sources().content_hash != THETA.content_hash


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (PartSpec({"kind": "other"}, {}), "config"),
        (PartSpec({"kind": "mean-and-spread"}, {}), "tensors"),
        (usual_sources_of(np.eye(4, dtype=np.float32)), "tensors"),
        (
            PartSpec(
                {"kind": "mean-and-spread"},
                {"mean": np.zeros(5, np.float32), "spread": np.zeros(1, np.float32)},
            ),
            "positive",
        ),
        (
            PartSpec(
                {"kind": "mean-and-spread"},
                {"mean": np.full(5, np.nan, np.float32), "spread": np.ones(1, np.float32)},
            ),
            "NaN",
        ),
    ],
)
def test_usual_sources_that_do_not_fit_are_refused(part: PartSpec, why: str) -> None:
    with pytest.raises(BadMetaInit, match=why):
        dataclasses.replace(THETA, usual_sources=part)


def test_fresh_is_its_seed() -> None:
    assert fresh_meta_init(5, 3).content_hash == fresh_meta_init(5, 3).content_hash
    assert fresh_meta_init(5, 3).content_hash != fresh_meta_init(5, 3, seed=1).content_hash


def test_another_reading_of_contents_is_another_encoder_version_of_the_same_theta(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theta = load_meta_init(shipped())
    before, content_hash = theta.encoder_version, theta.content_hash
    # what they were while pictures were read as stored, whatever EXIF said of them
    assert before != "d446e6143032"
    older = dataclasses.replace(theta, version="emoji-lowrank-5b053ec8", usual_sources=None)
    assert older.content_hash.startswith("d9ebc4c1131a")
    monkeypatch.setitem(cast(Any, READINGS), "image", 3)
    assert theta.encoder_version != before
    assert theta.content_hash == content_hash
    monkeypatch.setitem(cast(Any, READINGS), "text", 7)
    assert THETA.encoder_version == "identity"


def test_the_encoder_version_follows_its_tensors_only() -> None:
    theta = with_encoder()
    assert THETA.encoder_version == "identity"
    renamed = dataclasses.replace(theta, version="other")
    assert renamed.encoder_version == theta.encoder_version
    assert renamed.content_hash != theta.content_hash
    encoder = theta.source_encoder
    assert encoder is not None
    tensors = dict(encoder.tensors) | {"conv0.bias": np.ones(2, np.float32)}
    other = dataclasses.replace(theta, source_encoder=PartSpec(encoder.config, tensors))
    assert other.encoder_version != theta.encoder_version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": ""}, "version must be"),
        ({"activation": "swish"}, "activation is 'swish', not one of relu"),
        ({"source_modality": "smell"}, "source_modality is 'smell'"),
        ({"facts": {"seed": 1}}, "facts must map strings to strings"),
        ({"target_dim": 0}, "target_dim is 0"),
        ({"hidden_dim": True}, "hidden_dim is True"),
        ({"source_dim": 6}, r"mapping.w1 has shape \(4, 5\), its dims ask for \(4, 6\)"),
        ({"output_activation": "softmax"}, "output_activation is 'softmax', not one of none"),
        ({"parent": 3}, "parent must be a string"),
        ({"generator": PartSpec({})}, "config of generator must be an object with a kind"),
        ({"learner": learner(np.full((2, 4), np.nan, np.float32))}, "learner.rates holds NaN"),
        ({"learner": learner(np.zeros((2, 4)))}, "learner.rates is float64"),
        ({"mapping": {"w1": np.zeros((4, 5), np.float32)}}, "mapping tensors are"),
    ],
)
def test_what_does_not_fit_is_no_meta_init(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadMetaInit, match=message):
        dataclasses.replace(THETA, **change)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadMetaInit, match="No such file"):
        load_meta_init(tmp_path / "none")
    with pytest.raises(BadMetaInit, match="directory"):
        load_meta_init(tmp_path)


def test_an_oversize_file_is_refused_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)

    def read(_: Path) -> bytes:
        raise AssertionError("read all the same")

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(BadMetaInit, match="more than the limit of 100"):
        load_meta_init(path, max_bytes=100)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x01
        path.write_bytes(damaged)
        try:
            loaded = load_meta_init(path)
        except BadMetaInit:
            continue
        # only the tensors' contents, names and facts count, not spaces in the header
        assert loaded.content_hash == THETA.content_hash


@pytest.mark.parametrize("size", [0, 4, 8, 100])
def test_a_cut_file_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BadMetaInit, match="not a readable safetensors file"):
        load_meta_init(path)


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same file with another header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + size :])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("adaptd.format", "meta-init/9", "adaptd.format is 'meta-init/9'"),
        ("adaptd.content_hash", "0" * 64, "damaged: contents hash to"),
        ("adaptd.facts", "{}", "incomplete or malformed"),
        ("adaptd.facts", "[1]", "incomplete or malformed"),
        ("adaptd.facts", "no json", "incomplete or malformed"),
    ],
)
def test_a_header_that_lies_is_refused(key: str, value: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)
    rewrite(path, lambda header: header["__metadata__"].update({key: value}))
    with pytest.raises(BadMetaInit, match=message):
        load_meta_init(path)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)
    rewrite(path, lambda header: header["mapping.w1"].update({"shape": [5, 4]}))
    with pytest.raises(BadMetaInit, match=r"mapping.w1 has shape \(5, 4\)"):
        load_meta_init(path)


def test_a_file_without_metadata_or_with_more_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theta"
    save_meta_init(THETA, path)
    rewrite(path, lambda header: header.pop("__metadata__"))
    with pytest.raises(BadMetaInit, match="is 'none'"):
        load_meta_init(path)
    tensors = THETA.tensors() | {"more": np.zeros(1, np.float32)}
    header = {"adaptd.format": FORMAT, "adaptd.facts": json.dumps(THETA.header())}
    path.write_bytes(write_safetensors(tensors, header))
    with pytest.raises(BadMetaInit, match="unexpected tensors"):
        load_meta_init(path)
