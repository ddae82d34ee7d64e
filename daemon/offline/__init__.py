"""Work on recorded events, without a running daemon: record a topic to a file, meta-train a θ on
such files, evaluate a θ on them. `daemon.commands` has the options and the output."""
