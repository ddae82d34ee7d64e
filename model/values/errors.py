"""The errors that `model` raises.

ValueError
├── BadContent      the content of one event cannot be used; its sender can repair it
├── BadMetaInit     a θ file cannot be used; who deployed it can repair it
├── BadData         recorded streams cannot be trained or judged on; more or other data can
└── BadCheckpoint   a meta-training cannot be continued from this file
ArithmeticError
└── Diverged        a meta-training no longer gives finite numbers; another recipe may
RuntimeError
└── DeviceLost      the GPU is gone for this process; the CPU can go on
"""

from typing import Literal

BadContentReason = Literal[
    "wrong_modality",
    "wrong_dimension",
    "not_finite",
    "truncated_image",
    "decompression_bomb",
    "too_much_work",
    "unsupported_image_format",
    "empty_text",
    "empty_audio",
    "truncated_audio",
    "lying_audio_header",
    "unsupported_audio_format",
    "silent_audio",
    "too_long_audio",
    "empty_video",
    "too_long_video",
]
"""Why a content cannot be used, fit for a metric's label."""


class BadContent(ValueError):
    """The content of one event cannot be used. The message says what is wrong, where, and what
    would be right."""

    def __init__(self, reason: BadContentReason, message: str) -> None:
        super().__init__(message)
        self.reason: BadContentReason = reason


class BadMetaInit(ValueError):
    """A θ, or a part of one, cannot be used; the message says which and why."""


class BadData(ValueError):
    """Recorded streams cannot be used; the message says what they lack and how much there is."""


class BadCheckpoint(ValueError):
    """A checkpoint cannot be continued from; the message says what is wrong or differs."""


class Diverged(ArithmeticError):
    """Too many outer steps in a row were not finite; the message says where and how many."""


class DeviceLost(RuntimeError):
    """The GPU does not compute any more; the message says what the driver said."""
