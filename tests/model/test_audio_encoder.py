"""Audio features: the spectrogram is the textbook's, and a clip's features are its own."""

import numpy as np
import pytest
import torch
from scipy.signal import stft
from torch import Tensor
from torch.nn import functional

from model.encoders.audio import BASE_FRAMES, KIND, AudioEncoder, AudioNet, AudioSizes
from model.encoders.build import fresh_encoder_spec
from model.encoders.spectrogram import (
    FFT,
    FLOOR,
    FRAME,
    HOP,
    LOG_MEAN,
    LOG_SCALE,
    LogMel,
    frames_of,
    mel_filters,
    samples_of,
)
from model.encoders.trained_part import fresh_net
from model.values.contents import AudioClip
from model.values.errors import BadContent

CPU = torch.device("cpu")
SIZES = AudioSizes(dim=6, bands=16, channels=(4, 8))
ENCODER = AudioEncoder(fresh_encoder_spec(KIND, 6, seed=1, bands=16, channels=(4, 8)), CPU)


def noise(seconds: float, seed: int = 0, rate: int = 16_000) -> AudioClip:
    loud = np.random.default_rng(seed).standard_normal(round(seconds * rate)) * 3_000
    return AudioClip(loud.astype("<i2").tobytes(), "pcm_s16le", rate)


@pytest.mark.parametrize("samples", [400, 559, 560, 2_000])
def test_the_spectrogram_is_that_of_scipy_and_of_the_textbook(samples: int) -> None:
    wave_T = np.random.default_rng(0).standard_normal(samples)
    overlap = FRAME - HOP
    _, _, scaled_CF = stft(wave_T, 16_000, "hann", FRAME, overlap, FFT, boundary=None, padded=False)
    power_CF = np.abs(scaled_CF * FRAME / 2) ** 2  # scipy divides by the window's sum
    ours_RFM = LogMel(20)(torch.from_numpy(wave_T).float()[None])
    expected_FM = (np.log(power_CF.T @ textbook_filters(20) + FLOOR) - LOG_MEAN) / LOG_SCALE
    assert ours_RFM.shape == (1, frames_of(samples), 20)
    np.testing.assert_allclose(ours_RFM[0], expected_FM, atol=1e-4)


def textbook_filters(bands: int) -> np.ndarray:
    """Triangles by interpolation between edges that are found by inverting the scale."""
    mel = np.linspace(0, 2595 * np.log10(1 + 8_000 / 700), bands + 2)
    edges = 700 * (np.exp(mel * np.log(10) / 2595) - 1)
    bins = np.fft.rfftfreq(FFT, 1 / 16_000)
    rows = [np.interp(bins, edges[m : m + 3], [0, 1, 0]) for m in range(bands)]
    return np.stack(rows, 1)


@pytest.mark.parametrize("bands", [8, 20, 64])
def test_every_band_hears_something(bands: int) -> None:
    assert (mel_filters(bands).sum(0) > 0).all()


@pytest.mark.parametrize("frames", [1, 2, 30])
def test_frames_and_samples_agree(frames: int) -> None:
    assert frames_of(samples_of(frames)) == frames
    assert frames_of(samples_of(frames) + HOP - 1) == frames
    assert frames_of(samples_of(frames) - 1) == max(frames - 1, 1)


def slow(net: AudioNet, wave_T: Tensor) -> Tensor:
    """One clip without any padding behind it but what halving odd lengths asks for."""
    h_CFM = net.log_mel(wave_T[None])
    for conv in net.convs:
        h_CFM = functional.relu(conv(h_CFM[None])[0])
        h_CFM = functional.pad(h_CFM, (0, 0, 0, h_CFM.shape[1] % 2), value=float("-inf"))
        h_CFM = functional.max_pool2d(h_CFM, 2)
    raw_X = net.linear(h_CFM.mean(1).flatten())
    result: Tensor = raw_X / raw_X.norm() * len(raw_X) ** 0.5
    return result


@torch.no_grad()
def test_a_batch_of_all_lengths_is_each_clip_alone_whatever_stands_behind_it() -> None:
    net = fresh_net(lambda: AudioNet(SIZES), 3)
    lengths = [400, 560, 720, 880, 1_000, 5_000, 4_999]
    waves_RT = torch.randn(len(lengths), 6_000, generator=torch.Generator().manual_seed(0))
    together_RX = net(waves_RT, torch.tensor(lengths))
    for wave_T, length, features_X in zip(waves_RT, lengths, together_RX, strict=True):
        torch.testing.assert_close(features_X, slow(net, wave_T[:length]), atol=1e-5, rtol=1e-5)


def test_features_do_not_depend_on_company_to_the_bit() -> None:
    seconds = [0.01, 0.3, 0.32, 0.33, 0.9, 0.05, 0.31, 1.0]
    prepared = [ENCODER.prepare(noise(s, i)) for i, s in enumerate(seconds)]
    together_RX = ENCODER.encode(prepared)
    for array, features_X in zip(prepared, together_RX, strict=True):
        assert torch.equal(ENCODER.encode([array])[0], features_X)
    assert torch.equal(ENCODER.encode(prepared[::-1]).flip(0), together_RX)
    assert together_RX.shape == (len(seconds), 6)
    assert ENCODER.encode([]).shape == (0, 6)


def test_prepared_clips_are_whole_frames_one_at_least() -> None:
    assert len(ENCODER.prepare(noise(0.001))) == FRAME
    assert len(ENCODER.prepare(noise(0.05))) == FRAME + 2 * HOP
    assert BASE_FRAMES * HOP >= FRAME


def test_the_same_sound_at_another_level_and_rate_has_nearly_the_same_features() -> None:
    t_48k = np.arange(24_000) / 48_000
    tones = sum(np.sin(2 * np.pi * f * t_48k) for f in (300, 1_000, 2_500)) * 3_000
    fast = AudioClip(np.asarray(tones).astype("<i2").tobytes(), "pcm_s16le", 48_000)
    slow_quiet = np.asarray(tones)[::3] / 7
    other = AudioClip(slow_quiet.astype("<i2").tobytes(), "pcm_s16le", 16_000)
    a_X, b_X = ENCODER.encode([ENCODER.prepare(fast), ENCODER.prepare(other)])
    c_X = ENCODER.encode([ENCODER.prepare(noise(0.5))])[0]
    assert functional.cosine_similarity(a_X, b_X, 0) > 0.999
    assert functional.cosine_similarity(a_X, b_X, 0) > functional.cosine_similarity(a_X, c_X, 0)


def test_bad_audio_is_named() -> None:
    for content, reason in [
        ("text", "wrong_modality"),
        (AudioClip(b""), "empty_audio"),
        (AudioClip(bytes(8_000), "pcm_s16le", 16_000), "silent_audio"),
        (noise(31.0), "too_long_audio"),
    ]:
        with pytest.raises(BadContent) as caught:
            ENCODER.prepare(content)  # type: ignore[arg-type]
        assert caught.value.reason == reason


def test_the_forward_pass_is_exported() -> None:
    net = fresh_net(lambda: AudioNet(SIZES), 0).eval()
    inputs = (torch.randn(2, 2_000), torch.tensor([400, 1_900]))
    exported = torch.export.export(net, inputs)
    torch.testing.assert_close(exported.module()(*inputs), net(*inputs))


def test_it_learns_to_tell_sounds_apart() -> None:
    net = fresh_net(lambda: AudioNet(SIZES), 0)
    generator = torch.Generator().manual_seed(0)
    t_T = torch.arange(3_000) / 16_000
    pitch_R = torch.tensor([300.0, 3_000.0] * 8)[:, None]
    phase_R = torch.rand(16, 1, generator=generator)
    waves_RT = torch.sin(2 * torch.pi * (pitch_R * t_T + phase_R)) * 1.4
    waves_RT = waves_RT + 0.3 * torch.randn(waves_RT.shape, generator=generator)
    length_R = torch.randint(400, 3_001, (16,), generator=generator)
    goal_R = torch.tensor([0, 1] * 8)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(net(waves_RT, length_R)[:, :2], goal_R)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert losses[-1] < 0.2 < losses[0]
    served = AudioEncoder(net.spec(), CPU)
    own_RX = served.encode([w[:n].numpy() for w, n in zip(waves_RT, length_R, strict=True)])
    torch.testing.assert_close(own_RX, net(waves_RT, length_R).detach(), atol=1e-4, rtol=1e-4)
