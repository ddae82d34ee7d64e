"""What adaptation has to beat, each fitted on a stream's support alone or on what all share.

Every one comes down to a `Fit`: support in, mapping out, numpy arrays on both sides.
"""
