"""What can be wrong with what `model` is given.

ValueError
├── BadContent    the content of one event cannot be used; whoever sent it can repair it
└── BadMetaInit   a θ file cannot be used; whoever deployed it can repair it
"""


class BadContent(ValueError):
    """The content of one event cannot be used.

    `reason` is a short snake_case code, fit for a metric label; the message says what is wrong,
    where, and what would be right.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadMetaInit(ValueError):
    """A θ cannot be used; the message says which and why."""
