"""Decodes audio from senders that are not trusted: the header is checked before decoding.

T = time steps (samples, at the clip's rate or at 16 kHz), C = channels

Two encodings are read: WAV (RIFF), plain or extensible, with integers of 8, 16, 24 or 32 bits or
floats of 32 or 64; and raw 16-bit PCM. No compressed format is. A WAV file is a header of 12 bytes
and then chunks, each a name, a size and its bytes: `fmt ` says how the samples lie in `data`. A
program that writes into a pipe cannot go back to fill in the size of `data`, and leaves 0 there or
a very large number: then the samples are all that follows.

    bytes -> format and samples -> checks of both -> one channel, mean 0 -> 16 kHz -> RMS 1

Samples become fractions of full scale and channels are averaged. The level is set to an RMS of 1
because how loud a recording is tells how it was made, not what it holds. No torch here.
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
"""The rate of every decoded clip."""
LOWEST_HZ, HIGHEST_HZ = 4_000, 192_000
"""The rates that a clip may have."""
MOST_CHANNELS = 32
SILENCE_RMS = 1e-4
"""A clip of a lower RMS, as a share of full scale, is silent: −80 dB, three steps of 16 bits."""

STREAMED = 0x7FFF_0000
"""From this on a size is none: 0xFFFFFFFF (ffmpeg), 0x7FFFFFFF less a header (sox), 0x80000000
(arecord)."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""How every extensible sub-format ends that stands for a plain one (KSDATAFORMAT_SUBTYPE_*)."""
_CODECS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}


@dataclass(frozen=True, slots=True)
class WaveFormat:
    """How samples lie in bytes; they are little-endian, with channels interleaved."""

    codec: int
    bits: int
    rate: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """How many bytes one sample of every channel takes."""
        return self.channels * self.bits // 8


def decode_clip(clip: AudioClip, max_seconds: float) -> NDArray[np.float32]:
    """Returns a clip's samples (T), float32, at 16 kHz, of mean about 0 and RMS 1.

    Raises BadContent. Before memory is taken: `empty_audio`, `unsupported_audio_format`,
    `lying_audio_header`, `truncated_audio`, `too_long_audio` (more than `max_seconds`). After
    decoding: `not_finite`, `silent_audio`.
    """
    if not clip.data:
        raise BadContent("empty_audio", "audio of 0 bytes")
    form, samples = _raw(clip) if clip.encoding == "pcm_s16le" else _riff(clip.data)
    _check_format(form)
    _check_length(form, len(samples), max_seconds)
    wave_T = _checked(_mono(form, samples))
    # a ratio of rates with a large denominator is met to a millionth
    step = Fraction(form.rate, RATE_HZ).limit_denominator(640)
    wave_T = resampled(wave_T, up=step.denominator, down=step.numerator)
    return _levelled(wave_T)


def _raw(clip: AudioClip) -> tuple[WaveFormat, memoryview]:
    if clip.rate is None:
        raise BadContent("unsupported_audio_format", "raw PCM needs its rate (Hz)")
    return WaveFormat(_PCM, 16, clip.rate, clip.channels), memoryview(clip.data)


def _riff(data: bytes) -> tuple[WaveFormat, memoryview]:
    """Returns a WAV file's format and its samples, which are not copied."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadContent(
            "unsupported_audio_format", f"audio of {len(data)} bytes is no WAV file (RIFF WAVE)"
        )
    form: WaveFormat | None = None
    for name, start, declared in _chunks(data):
        if name == b"data" and form is not None and _is_streamed(data, start, declared):
            whole = (len(data) - start) // (form.frame_bytes or 1) * form.frame_bytes
            return form, memoryview(data)[start : start + whole]
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


def _chunks(data: bytes, at: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Yields each chunk's name, where its bytes start, and the size that it declares."""
    while at + 8 <= len(data):
        declared = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], at + 8, declared
        at += 8 + declared
        # an odd chunk is followed by a zero, which some programs leave out
        at += declared % 2 and data[at : at + 1] == b"\0"


def _is_streamed(data: bytes, start: int, declared: int) -> bool:
    """Returns whether the size of a `data` chunk was not known when it was written. A size of 0 is
    meant where nothing but whole chunks follow."""
    if declared:
        return declared >= STREAMED
    end = start
    for name, begin, size in _chunks(data, start):
        if not (name.isascii() and name.decode().isprintable()):
            return True
        end = begin + size
    return end not in (len(data), len(data) - 1)


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
    """Returns the mean of the channels (T), as fractions of full scale."""
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
    """Returns the wave over its peak, less its mean; raises `not_finite` and `silent_audio`."""
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
