"""Events files: a topic on disk, and a data set to meta-train on."""
