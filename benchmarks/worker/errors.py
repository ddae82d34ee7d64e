"""What stops a benchmark."""


class BenchFailed(Exception):
    """The run was not what it set out to measure, so no figures are printed."""
