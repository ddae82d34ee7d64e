"""The commands of `adaptd` that take more than a few lines: options, help texts and output. The
work is done in `daemon.offline` (recorded events), `daemon.thetas` (published θs) and
`model.emoji`."""
