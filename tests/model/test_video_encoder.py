"""Video features: frames in order, any number of them, each clip by itself."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from model.encoders import image
from model.encoders.build import fresh_encoder_spec
from model.encoders.pixels import decode_picture
from model.encoders.trained_part import fresh_net
from model.encoders.video import VideoEncoder, VideoNet, VideoSizes, split_spec
from model.theta.part import PartSpec
from model.values.contents import Content, VideoClip
from model.values.errors import BadContent, BadMetaInit

CPU = torch.device("cpu")
FRAME = fresh_encoder_spec(image.KIND, 8, seed=2, side=8, blocks=((4, True),))
SIZES = VideoSizes(dim=6, max_frames=9, frame_dim=8, hidden=5)
NET = fresh_net(lambda: VideoNet(SIZES), 3)
ENCODER = VideoEncoder(NET.spec(FRAME), CPU)


def frame(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (11, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def clip(*seeds: int) -> VideoClip:
    return VideoClip(tuple(map(frame, seeds)), fps=25.0)


def slow(net: VideoNet, x_FI: Tensor) -> Tensor:
    """One clip, frame by frame, with cells instead of sequences."""
    ahead_H = last_state(net.forwards, list(x_FI))
    back_H = last_state(net.backwards, list(x_FI)[::-1])
    raw_X: Tensor = net.linear(torch.cat([x_FI.mean(0), ahead_H, back_H])[None])[0]
    result: Tensor = raw_X / raw_X.norm() * len(raw_X) ** 0.5
    return result


def last_state(gru: nn.GRU, frames: list[Tensor]) -> Tensor:
    cell = nn.GRUCell(gru.input_size, gru.hidden_size)
    cell.load_state_dict({n.removesuffix("_l0"): t for n, t in gru.state_dict().items()})
    state_1H = torch.zeros(1, gru.hidden_size)
    for x_I in frames:
        state_1H = cell(x_I[None], state_1H)
    return state_1H[0]


@torch.no_grad()
def test_a_batch_of_all_lengths_is_each_clip_alone_whatever_stands_behind_it() -> None:
    lengths = [1, 2, 5, 8]
    x_RFI = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    together_RX = NET(x_RFI, torch.tensor(lengths))
    for x_FI, length, features_X in zip(x_RFI, lengths, together_RX, strict=True):
        torch.testing.assert_close(features_X, slow(NET, x_FI[:length]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_clip_is_its_frames_through_the_image_encoder_then_the_recurrence() -> None:
    seeds = (4, 5, 6)
    frames = image.ImageEncoder(FRAME, CPU)
    pixels = np.stack([decode_picture(frame(seed), 8) for seed in seeds])
    expected_X = slow(NET, frames.encode(torch.from_numpy(pixels)).clone())
    features_RX = ENCODER.encode([ENCODER.prepare(clip(*seeds))])
    torch.testing.assert_close(features_RX[0], expected_X, atol=1e-5, rtol=1e-5)


def test_features_do_not_depend_on_company_to_the_bit() -> None:
    clips = [clip(*range(start, start + 1 + start % 9)) for start in range(12)]
    prepared = [ENCODER.prepare(c) for c in clips]
    together_RX = ENCODER.encode(prepared)
    for array, features_X in zip(prepared, together_RX, strict=True):
        assert torch.equal(ENCODER.encode([array])[0], features_X)
    assert torch.equal(ENCODER.encode(prepared[::-1]).flip(0), together_RX)
    assert together_RX.shape == (12, 6)
    assert ENCODER.encode([]).shape == (0, 6)


def test_the_order_of_frames_matters() -> None:
    clips = [clip(1, 2, 3), clip(3, 2, 1)]
    a_X, b_X = ENCODER.encode([ENCODER.prepare(c) for c in clips])
    assert (a_X - b_X).norm() > 1e-2


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        (b"bytes", "wrong_modality", "not bytes"),
        (VideoClip(()), "empty_video", "without a frame"),
        (clip(*range(10)), "too_long_video", "10 frames; at most 9"),
        (VideoClip((frame(1), b"")), "unsupported_image_format", "frame 1"),
        (VideoClip((frame(1), frame(2), frame(3)[:-40])), "truncated_image", "frame 2"),
    ],
)
def test_a_bad_clip_is_named(content: Content, reason: str, says: str) -> None:
    with pytest.raises(BadContent, match=says) as caught:
        ENCODER.prepare(content)
    assert caught.value.reason == reason


def test_too_many_frames_are_refused_before_any_is_decoded() -> None:
    with pytest.raises(BadContent) as caught:
        ENCODER.prepare(VideoClip((b"not a picture",) * 10))
    assert caught.value.reason == "too_long_video"


def test_the_spec_nests_the_image_encoders() -> None:
    spec = NET.spec(FRAME)
    own, inner = split_spec(spec)
    assert spec.config["frame"] == inner.config == FRAME.config
    assert {n for n in spec.tensors if n.startswith("frame.")} == {
        f"frame.{n}" for n in FRAME.tensors
    }
    assert set(own.tensors) == set(NET.state_dict())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frame": None}, "no image encoder"),
        ({"frame": {"kind": "rnn/9"}}, "rnn/9"),
        ({"frame_dim": 9}, "reads 9 features, not 8"),
    ],
)
def test_an_image_encoder_that_does_not_fit_is_refused(
    change: dict[str, object], says: str
) -> None:
    spec = NET.spec(FRAME)
    with pytest.raises(BadMetaInit, match=says):
        VideoEncoder(PartSpec({**spec.config, **change}, spec.tensors), CPU)


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch's own GRU's, in its export
def test_the_forward_pass_is_exported() -> None:
    inputs = (torch.randn(3, 4, 8), torch.tensor([1, 4, 2]))
    exported = torch.export.export(NET, inputs)
    torch.testing.assert_close(exported.module()(*inputs), NET(*inputs))


def test_it_learns_the_direction_of_time() -> None:
    net = fresh_net(lambda: VideoNet(SIZES), 0)
    generator = torch.Generator().manual_seed(0)
    there_RFI = torch.randn(16, 1, 8, generator=generator) * torch.linspace(-1, 1, 4)[:, None]
    rise_RFI = there_RFI.abs() * torch.linspace(0.2, 2, 4)[:, None]
    x_RFI = torch.cat([rise_RFI, rise_RFI.flip(1)])
    length_R, goal_R = torch.full((32,), 4), torch.arange(2).repeat_interleave(16)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(40):
        loss = functional.cross_entropy(net(x_RFI, length_R)[:, :2], goal_R)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert losses[-1] < 0.2 < losses[0]
