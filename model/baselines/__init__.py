"""Baselines that adaptation has to beat. Some are fitted on a stream's support alone, some begin
with what was trained on all streams.

Each is a `Fit`: it takes a support and returns a mapping, both as numpy arrays.
"""
