"""The commands of `adaptd` that take more than a few lines: their options, help and output. What
they do is in `daemon.offline` (recorded events) and `daemon.thetas` (published θs)."""
