"""Audio bytes -> one channel at one rate, trusting nothing: the header is judged before decoding.

T = samples at the file's rate, or at ours; C = channels

WAV (RIFF) with integer PCM of 8, 16, 24 or 32 bits or floats of 32 or 64, plain or extensible, and
raw 16-bit PCM. No compressed format is opened. Samples are read as fractions of full scale,
channels are averaged, the mean is taken out, the rate becomes 16 kHz, and the level is set to an
RMS of 1: how loud a recording is says how it was made. No torch here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from model.encoders.resampling import resampled
from model.values.contents import AudioClip
from model.values.errors import BadContent

RATE_HZ = 16_000
LOWEST_HZ, HIGHEST_HZ = 4_000, 192_000
MOST_CHANNELS = 32
SILENCE_RMS = 1e-4
"""Of full scale (−80 dB): at 16 bits, three times the last bit."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of every extensible sub-format that stands for a plain one (KSDATAFORMAT_SUBTYPE_*)."""
_CODECS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """How samples lie in bytes: little-endian, channels interleaved."""

    codec: int
    bits: int
    rate: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.bits // 8


def decode_clip(clip: AudioClip, max_seconds: float) -> NDArray[np.float32]:
    """Samples (T), float32, at 16 kHz, mean about 0, RMS 1.

    Raises BadContent: `empty_audio`, `unsupported_audio_format`, `lying_audio_header`,
    `truncated_audio`, `too_long_audio` (these before memory is taken), `not_finite`,
    `silent_audio`.
    """
    if not clip.data:
        raise BadContent("empty_audio", "audio of 0 bytes")
    form, samples = _raw(clip) if clip.encoding == "pcm_s16le" else _riff(clip.data)
    _check_format(form)
    _check_length(form, len(samples), max_seconds)
    wave_T = _checked(_mono(form, samples))
    # a rate that is no round fraction of ours is met to a millionth
    step = Fraction(form.rate, RATE_HZ).limit_denominator(640)
    wave_T = resampled(wave_T, up=step.denominator, down=step.numerator)
    return _levelled(wave_T)


def _raw(clip: AudioClip) -> tuple[WaveFormat, memoryview]:
    if clip.rate is None:
        raise BadContent("unsupported_audio_format", "raw PCM needs its rate (Hz)")
    return WaveFormat(_PCM, 16, clip.rate, clip.channels), memoryview(clip.data)


def _riff(data: bytes) -> tuple[WaveFormat, memoryview]:
    """A WAV file's format and samples, not copied."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadContent(
            "unsupported_audio_format", f"audio of {len(data)} bytes is no WAV file (RIFF WAVE)"
        )
    form: WaveFormat | None = None
    for name, start, declared in _chunks(data):
        if start + declared > len(data):
            raise BadContent(
                "truncated_audio",
                f"WAV chunk {name!r} has {len(data) - start} of {declared} declared bytes",
            )
        if name == b"fmt ":
            form = _format(data[start : start + min(declared, 40)])
        elif name == b"data":
            if form is None:
                raise BadContent("lying_audio_header", "WAV samples come before their format")
            return form, memoryview(data)[start : start + declared]
    raise BadContent("truncated_audio", f"WAV file of {len(data)} bytes ends before its samples")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, where it starts, and the size that it says it has."""
    at = 12
    while at + 8 <= len(data):
        declared = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, declared
        at += 8 + declared + declared % 2


def _format(chunk: bytes) -> WaveFormat:
    if len(chunk) < 16:
        raise BadContent("lying_audio_header", f"WAV format of {len(chunk)} bytes; 16 are least")
    codec, channels, rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", chunk[:16])
    if codec == _EXTENSIBLE:
        if len(chunk) < 40 or chunk[26:40] != _GUID_TAIL:
            raise BadContent("unsupported_audio_format", "extensible WAV of an unknown sub-format")
        codec = int.from_bytes(chunk[24:26], "little")
    form = WaveFormat(codec, bits, rate, channels)
    if (codec, bits) in _CODECS and form.frame_bytes != frame_bytes:
        raise BadContent(
            "lying_audio_header",
            f"WAV says {frame_bytes} bytes for {channels} channels of {bits} bits",
        )
    return form


def _check_format(form: WaveFormat) -> None:
    if (form.codec, form.bits) not in _CODECS:
        raise BadContent(
            "unsupported_audio_format",
            f"WAV codec {form.codec} of {form.bits} bits; expected integers of 8, 16, 24 or 32 "
            "bits (codec 1) or floats of 32 or 64 (codec 3)",
        )
    if not 1 <= form.channels <= MOST_CHANNELS:
        raise BadContent(
            "unsupported_audio_format", f"{form.channels} channels; expected 1 to {MOST_CHANNELS}"
        )
    if not LOWEST_HZ <= form.rate <= HIGHEST_HZ:
        raise BadContent(
            "unsupported_audio_format",
            f"{form.rate} samples a second; expected {LOWEST_HZ} to {HIGHEST_HZ}",
        )


def _check_length(form: WaveFormat, n_bytes: int, max_seconds: float) -> None:
    if n_bytes == 0:
        raise BadContent("empty_audio", "audio without a sample")
    if n_bytes % form.frame_bytes:
        raise BadContent(
            "truncated_audio",
            f"{n_bytes} bytes of samples are no multiple of {form.frame_bytes}, "
            f"{form.channels} channels of {form.bits} bits",
        )
    seconds = n_bytes / form.frame_bytes / form.rate
    if seconds > max_seconds:
        raise BadContent("too_long_audio", f"audio of {seconds:.3f} s; at most {max_seconds:g} s")


def _mono(form: WaveFormat, samples: memoryview) -> NDArray[np.float64]:
    """The channels' mean (T), as fractions of full scale."""
    numbers_TC = _numbers(form, samples).reshape(-1, form.channels)
    return np.asarray(numbers_TC.mean(1))


def _numbers(form: WaveFormat, samples: memoryview) -> NDArray[np.float64]:
    if form.codec == _FLOAT:
        return np.frombuffer(samples, f"<f{form.bits // 8}").astype(np.float64)
    if form.bits == 8:  # the one unsigned width
        return (np.frombuffer(samples, np.uint8).astype(np.float64) - 128.0) / 128.0
    if form.bits == 24:
        padded_T4 = np.zeros((len(samples) // 3, 4), np.uint8)
        padded_T4[:, 1:] = np.frombuffer(samples, np.uint8).reshape(-1, 3)
        return padded_T4.view("<i4")[:, 0] / 2.0**31
    whole_T: NDArray[np.float64] = np.frombuffer(samples, f"<i{form.bits // 8}").astype(np.float64)
    return whole_T / 2.0 ** (form.bits - 1)


def _checked(wave_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """The wave without its mean, peak 1; raises `not_finite` and `silent_audio`."""
    bad = np.flatnonzero(~np.isfinite(wave_T))
    if bad.size:
        raise BadContent("not_finite", f"audio holds {wave_T[bad[0]]} at sample {bad[0]}")
    largest = float(np.abs(wave_T).max()) or 1.0  # taken out first: squares of floats overflow
    wave_T = wave_T / largest
    wave_T = wave_T - wave_T.mean()
    rms = float(np.sqrt(np.mean(np.square(wave_T))))
    if rms * largest < SILENCE_RMS:
        raise BadContent(
            "silent_audio",
            f"audio has an RMS of {rms * largest:.1e} of full scale; at least {SILENCE_RMS:g}",
        )
    return wave_T


def _levelled(wave_T: NDArray[np.float64]) -> NDArray[np.float32]:
    rms = float(np.sqrt(np.mean(np.square(wave_T))))
    if rms < SILENCE_RMS:  # all of it lay above what 16 kHz can hold
        raise BadContent("silent_audio", f"audio has nothing below {RATE_HZ // 2} Hz")
    return (wave_T / rms).astype(np.float32)
