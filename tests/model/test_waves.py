"""Audio bytes: what other programs write is read as they mean it, what is bad is named."""

import io
import math
import struct
import time
import tracemalloc
import wave
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly

from model.encoders.resampling import filter_phases, resampled
from model.encoders.waves import HIGHEST_HZ, LOWEST_HZ, RATE_HZ, decode_clip
from model.values.contents import AudioClip
from model.values.errors import BadContent

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4_000) / RATE_HZ)


def scipy_wav(samples: NDArray[np.generic], rate: int = RATE_HZ) -> bytes:
    """A WAV file as an independent library writes it."""
    file = io.BytesIO()
    wavfile.write(file, rate, samples)
    return file.getvalue()


def stdlib_wav(samples: bytes, width: int, channels: int = 1, rate: int = RATE_HZ) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()


def wav(
    *, codec: int = 1, channels: int = 1, rate: int = RATE_HZ, bits: int = 16, **change: int | bytes
) -> bytes:
    """A WAV file by hand, so that it can lie: `frame_bytes`, `declared`, `samples`, `extra`."""
    samples = change.get("samples", (TONE * 32767).astype("<i2").tobytes())
    assert isinstance(samples, bytes)
    extra = change.get("extra", b"")
    assert isinstance(extra, bytes)
    frame_bytes = change.get("frame_bytes", channels * bits // 8)
    form = struct.pack("<HHIIHH", codec, channels, rate, 0, frame_bytes, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", change.get("declared", len(samples))) + samples
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def decoded(data: bytes, max_seconds: float = 10.0) -> NDArray[np.float32]:
    return decode_clip(AudioClip(data), max_seconds)


def refused(clip: AudioClip, max_seconds: float = 10.0) -> BadContent:
    with pytest.raises(BadContent) as caught:
        decode_clip(clip, max_seconds)
    return caught.value


def levelled(wave_T: NDArray[Any]) -> NDArray[np.float64]:
    centred = np.asarray(wave_T, np.float64) - float(np.mean(wave_T))
    return np.asarray(centred / np.sqrt(np.mean(centred**2)))


@pytest.mark.parametrize(
    ("samples", "tolerance"),
    [
        (((TONE * 127) + 128).round().astype(np.uint8), 0.02),
        ((TONE * 32767).round().astype(np.int16), 1e-4),
        ((TONE * (2**31 - 1)).round().astype(np.int32), 1e-6),
        (TONE.astype(np.float32), 1e-6),
        (TONE.astype(np.float64), 1e-6),
    ],
    ids=["u8", "i16", "i32", "f32", "f64"],
)
def test_every_width_that_scipy_writes_is_read(
    samples: NDArray[np.generic], tolerance: float
) -> None:
    np.testing.assert_allclose(decoded(scipy_wav(samples)), levelled(TONE), atol=tolerance)


def test_24_bits_are_read() -> None:
    whole = (TONE * (2**23 - 1)).round().astype("<i4")
    packed = whole.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    np.testing.assert_allclose(decoded(stdlib_wav(packed, 3)), levelled(whole), atol=1e-6)


def test_channels_are_averaged() -> None:
    left, right = (TONE * 20_000).astype("<i2"), np.roll((TONE * 9_000).astype("<i2"), 7)
    both = np.stack([left, right], 1)
    expected = levelled(left.astype(float) + right)
    np.testing.assert_allclose(decoded(scipy_wav(both)), expected, atol=1e-6)
    raw = AudioClip(both.tobytes(), "pcm_s16le", RATE_HZ, 2)
    np.testing.assert_array_equal(decode_clip(raw, 1.0), decoded(scipy_wav(both)))


def test_an_extensible_wav_is_read_as_the_plain_one() -> None:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    extra = struct.pack("<HHI", 22, 16, 4) + guid
    np.testing.assert_array_equal(decoded(wav(codec=0xFFFE, extra=extra)), decoded(wav()))


def test_other_chunks_are_passed_over_odd_ones_with_their_padding() -> None:
    plain = wav()
    listed = plain[:36] + b"LIST" + struct.pack("<I", 5) + b"note\x00\x00" + plain[36:]
    np.testing.assert_array_equal(decoded(listed), decoded(plain))


PIPED = {
    "ffmpeg": 0xFFFFFFFF,
    "sox": 0x7FFFFFFF - 36,
    "0x7FFFFFDB": 0x7FFFFFDB,
    "arecord": 0x80000000,
    "less its header": 0xFFFFFFFF - 36,
    "nothing": 0,
}
WIDTHS = {
    "8 bits": (1, 8, ((TONE * 127) + 128).round().astype(np.uint8).tobytes(), 0.02),
    "16 bits": (1, 16, (TONE * 32767).round().astype("<i2").tobytes(), 1e-4),
    "24 bits": (
        *(1, 24),
        b"".join(int(v).to_bytes(3, "little", signed=True) for v in (TONE * 8388607).round()),
        1e-6,
    ),
    "32 bits": (1, 32, (TONE * (2**31 - 1)).round().astype("<i4").tobytes(), 1e-6),
    "float32": (3, 32, TONE.astype("<f4").tobytes(), 1e-6),
    "float64": (3, 64, TONE.astype("<f8").tobytes(), 1e-6),
}


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("declared", PIPED.values(), ids=PIPED)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_wav_from_a_pipe_is_read_to_its_end(width: str, declared: int, extensible: bool) -> None:
    codec, bits, samples, tolerance = WIDTHS[width]
    how: dict[str, Any] = {"codec": codec, "bits": bits, "declared": declared}
    if extensible:
        guid = struct.pack("<H", codec) + bytes.fromhex("000000001000800000aa00389b71")
        how |= {"codec": 0xFFFE, "extra": struct.pack("<HHI", 22, bits, 4) + guid}
    found = decoded(wav(samples=samples, **how))
    np.testing.assert_allclose(found, levelled(TONE), atol=tolerance)
    in_bytes = bits // 8
    for cut in range(1, in_bytes):  # the pipe broke within a sample
        part = decoded(wav(samples=samples + bytes(cut), **how))
        np.testing.assert_array_equal(part, found)


def test_a_size_of_0_is_meant_where_whole_chunks_follow() -> None:
    listed = b"LIST" + struct.pack("<I", 5) + b"note\0" + b"\0"
    for rest in (listed, listed[:-1], listed * 2, b"LIST\0\0\0\0"):
        error = refused(AudioClip(wav(samples=rest, declared=0)))
        assert (error.reason, str(error)) == ("empty_audio", "audio without a sample")


@pytest.mark.parametrize("padding", [b"\0", b""], ids=["padded", "not padded"])
def test_an_odd_chunk_may_lack_its_padding(padding: bytes) -> None:
    plain = wav()
    listed = plain[:36] + b"LIST" + struct.pack("<I", 5) + b"note\0" + padding + plain[36:]
    np.testing.assert_array_equal(decoded(listed), decoded(plain))
    odd = (TONE[:3_999] * 127 + 128).round().astype(np.uint8).tobytes()
    expected = decoded(wav(bits=8, samples=odd))
    behind = wav(bits=8, samples=odd + padding + b"LIST\4\0\0\0note", declared=3_999)
    np.testing.assert_array_equal(decoded(behind), expected)


@pytest.mark.parametrize("rate", [1, 100, LOWEST_HZ - 1, HIGHEST_HZ + 1, 2**31, 4_000_000_000])
def test_rates_that_would_make_much_of_little_are_refused_at_once(rate: int) -> None:
    for clip in (AudioClip(wav(rate=rate)), AudioClip(bytes(8_000), "pcm_s16le", rate)):
        started = time.process_time()
        assert refused(clip).reason == "unsupported_audio_format"
        assert time.process_time() - started < 0.2


@pytest.mark.parametrize("rate", [LOWEST_HZ, 4_001, 8_000, 44_100, 47_999, 191_999, HIGHEST_HZ])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_megabyte_of_audio_takes_bounded_time(rate: int, bits: int) -> None:
    noise = np.random.default_rng(0).bytes(2**20 - 44)
    started = time.process_time()
    decoded(wav(rate=rate, bits=bits, samples=noise[: len(noise) // 2 * 2]), 600.0)
    assert time.process_time() - started < 6.0


def test_filters_are_kept_and_not_written_to() -> None:
    assert filter_phases(160, 441) is filter_phases(160, 441)
    with pytest.raises(ValueError, match="read-only"):
        filter_phases(160, 441)[0, 0] = 1.0


@pytest.mark.parametrize(("up", "down"), [(160, 441), (1, 3), (2, 1), (320, 441), (53, 636)])
def test_resampling_is_the_sum_that_it_says(up: int, down: int) -> None:
    """Each output by itself: the taps of its phase times the inputs around its place."""
    wave_T = np.random.default_rng(up).standard_normal(700)
    taps_RI = filter_phases(up, down)
    half = taps_RI.shape[1] // 2
    padded = np.concatenate([np.zeros(half), wave_T, np.zeros(half + down + 1)])
    expected = []
    for place in range(-(-len(wave_T) * up // down)):
        start, phase = divmod(place * down, up)
        expected.append(math.fsum(padded[start : start + taps_RI.shape[1]] * taps_RI[phase]))
    np.testing.assert_allclose(resampled(wave_T, up, down), expected, atol=1e-13)


def test_level_and_offset_do_not_matter() -> None:
    quiet = scipy_wav((0.01 * TONE + 0.3).astype(np.float32))
    np.testing.assert_allclose(decoded(quiet), levelled(TONE), atol=1e-4)
    huge = scipy_wav(TONE * 1e300)
    np.testing.assert_allclose(decoded(huge), levelled(TONE), atol=1e-5)


GUID_LESS = struct.pack("<HHI", 22, 16, 4) + bytes(16)
SILENCE = scipy_wav(np.zeros(800, np.int16))
BAD: list[tuple[str, AudioClip, str]] = [
    ("empty_audio", AudioClip(b""), "0 bytes"),
    ("empty_audio", AudioClip(wav(samples=b"")), "without a sample"),
    ("empty_audio", AudioClip(b"", "pcm_s16le", RATE_HZ), "0 bytes"),
    ("unsupported_audio_format", AudioClip(b"ID3\x04" + bytes(99)), "no WAV"),
    ("unsupported_audio_format", AudioClip(b"OggS" + bytes(99)), "no WAV"),
    ("unsupported_audio_format", AudioClip(wav(codec=85)), "codec 85"),
    ("unsupported_audio_format", AudioClip(wav(bits=12)), "12 bits"),
    ("unsupported_audio_format", AudioClip(wav(codec=3, bits=16)), "codec 3 of 16"),
    ("unsupported_audio_format", AudioClip(wav(codec=0xFFFE)), "sub-format"),
    ("unsupported_audio_format", AudioClip(wav(codec=0xFFFE, extra=GUID_LESS)), "sub-format"),
    ("unsupported_audio_format", AudioClip(wav(channels=0)), "0 channels"),
    ("unsupported_audio_format", AudioClip(wav(channels=999)), "999 channels"),
    ("unsupported_audio_format", AudioClip(wav(rate=0)), "0 samples a second"),
    ("unsupported_audio_format", AudioClip(wav(rate=2**32 - 1)), "samples a second"),
    ("unsupported_audio_format", AudioClip(b"ab", "pcm_s16le"), "needs its rate"),
    ("unsupported_audio_format", AudioClip(b"ab", "pcm_s16le", -1), "-1 samples"),
    ("unsupported_audio_format", AudioClip(b"ab", "pcm_s16le", 8_000, 0), "0 channels"),
    ("lying_audio_header", AudioClip(wav(frame_bytes=4)), "4 bytes for 1 channels of 16"),
    ("lying_audio_header", AudioClip(wav()[:12] + wav()[36:]), "before their format"),
    ("lying_audio_header", AudioClip(wav()[:16] + b"\x02\0\0\0ab" + wav()[36:]), "2 bytes"),
    ("truncated_audio", AudioClip(wav()[:-1]), "7999 of 8000"),
    ("truncated_audio", AudioClip(wav(declared=2**31 - 2**16 - 1)), "of 2147418111"),
    ("truncated_audio", AudioClip(wav(samples=b"abc")), "no multiple of 2"),
    ("truncated_audio", AudioClip(wav()[:30]), "10 of 16"),
    ("truncated_audio", AudioClip(wav()[:36]), "before its samples"),
    ("truncated_audio", AudioClip(b"abcdef", "pcm_s16le", 8_000, 2), "no multiple of 4"),
    ("too_long_audio", AudioClip(wav(rate=LOWEST_HZ, samples=bytes(80_002))), "at most 10 s"),
    ("not_finite", AudioClip(scipy_wav(np.array([0.1, np.nan], np.float32))), "nan at sample 1"),
    ("not_finite", AudioClip(scipy_wav(np.array([np.inf, 0.1]))), "inf at sample 0"),
    ("silent_audio", AudioClip(SILENCE), "0.0e+00"),
    ("silent_audio", AudioClip(scipy_wav(np.full(800, 0.7, np.float32))), "RMS"),
    ("silent_audio", AudioClip(scipy_wav((TONE * 1e-4).astype(np.float32))), "RMS"),
]


@pytest.mark.parametrize(("reason", "clip", "says"), BAD, ids=[f"{b[0]}-{b[2]}" for b in BAD])
def test_bad_audio_is_named(reason: str, clip: AudioClip, says: str) -> None:
    error = refused(clip)
    assert (error.reason, says in str(error)) == (reason, True), str(error)


def test_sound_above_what_our_rate_can_hold_is_silence() -> None:
    high = np.sin(2 * np.pi * 20_000 * np.arange(9_600) / 96_000).astype(np.float32)
    # the ends of the clip click: what is not a whole sine is heard
    fade = np.hanning(9_600).astype(np.float32)
    assert refused(AudioClip(scipy_wav(high * fade, 96_000))).reason == "silent_audio"


def test_the_longest_clip_is_taken() -> None:
    assert len(decoded(wav(samples=TONE.astype("<f4").tobytes(), codec=3, bits=32), 0.25)) == 4_000


@pytest.mark.parametrize(
    "data", [wav(declared=2**30), wav(rate=1, declared=2**32 - 1), wav(rate=2**32 - 1)]
)
def test_a_header_that_lies_takes_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        refused(AudioClip(data))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(data=st.binary(max_size=80), edits=st.lists(st.tuples(st.integers(0, 60), st.binary())))
@settings(max_examples=200)
def test_any_bytes_are_a_wave_or_bad_content(data: bytes, edits: list[tuple[int, bytes]]) -> None:
    good = wav(samples=data)
    for at, replacement in edits:
        good = good[:at] + replacement + good[at + len(replacement) :]
    with suppress(BadContent):
        assert np.isfinite(decoded(good)).all()


@pytest.mark.parametrize("rate", [LOWEST_HZ, 8_000, 11_025, 22_050, 44_100, 48_000, HIGHEST_HZ])
def test_a_tone_keeps_its_pitch_level_and_phase_at_any_rate(rate: int) -> None:
    t = np.arange(rate) / rate
    wave_T = decoded(scipy_wav((0.3 * np.sin(2 * np.pi * 1_000 * t)).astype(np.float32), rate))
    assert len(wave_T) == RATE_HZ
    expected = np.sqrt(2) * np.sin(2 * np.pi * 1_000 * np.arange(RATE_HZ) / RATE_HZ)
    inner = slice(500, -500)  # at the ends the filter sees the silence around
    np.testing.assert_allclose(wave_T[inner], expected[inner], atol=3e-3)


def test_a_rate_that_is_no_round_fraction_is_met_closely() -> None:
    rate = 22_254
    t = np.arange(rate) / rate
    wave_T = decoded(scipy_wav(np.sin(2 * np.pi * 1_000 * t).astype(np.float32), rate))
    spectrum = np.abs(np.fft.rfft(wave_T[:RATE_HZ], RATE_HZ))
    assert abs(len(wave_T) - RATE_HZ) <= 2
    assert spectrum.argmax() == 1_000


@pytest.mark.parametrize("tone", [8_000, 9_000, 15_000, 23_000])
def test_tones_above_half_the_new_rate_leave_no_alias(tone: int) -> None:
    t = np.arange(48_000) / 48_000
    result = resampled(np.sin(2 * np.pi * tone * t), up=1, down=3)
    assert np.abs(result[500:-500]).max() < 2e-4


@pytest.mark.parametrize(("up", "down"), [(1, 3), (160, 441), (2, 1), (640, 441), (1, 12)])
def test_slow_sound_is_resampled_as_scipy_does(up: int, down: int) -> None:
    rng = np.random.default_rng(up)
    n = 4_096
    spectrum = np.zeros(n // 2 + 1, complex)
    low = int(n / 2 * 0.5 * min(1.0, up / down))
    spectrum[1:low] = rng.standard_normal(low - 1) + 1j * rng.standard_normal(low - 1)
    wave_T = np.fft.irfft(spectrum) * np.hanning(n)
    expected = resample_poly(wave_T, up, down, window=("kaiser", 8.6))
    result = resampled(wave_T, up, down)
    assert len(result) == len(expected)
    np.testing.assert_allclose(result, expected, atol=2e-3 * np.abs(wave_T).max())
