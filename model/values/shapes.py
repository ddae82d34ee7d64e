"""The letters of shapes: one meaning each, over the whole tree.

The name of an array ends in its shape, a letter for each axis: `x_BSD` is a batch of streams, of
support pairs, of source features. A digit is an axis of that length (`mean_B1`), or stands beside
a letter for what has a fixed number (`rates_K4`: two layers' weights and biases). A file that uses
letters lists them at its top, in the words of this table; what a letter means there in particular
stands in parentheses: "R = rows (pictures)". `tests/test_shapes.py` holds every file to it.
"""

LETTERS = {
    # streams and their pairs
    "B": "streams in batch",
    "S": "support pairs",
    "Q": "query pairs",
    "N": "pairs of a stream",
    "W": "window size",
    "Z": "slots",
    "R": "rows",
    "Y": "candidates",
    # the mapping and its inner loop
    "D": "source dim",
    "E": "target dim",
    "X": "source or target dim",
    "H": "hidden units",
    "G": "H + 1",
    "K": "inner steps",
    "A": "anchors",
    "V": "spanning rows",
    "J": "rows of all inner steps",
    "L": "learned numbers in one vector",
    # encoders and other networks
    "I": "inputs of a layer",
    "O": "outputs of a layer",
    "U": "numbers of an embedding",
    "C": "channels",
    "P": "pixels a side",
    "T": "time steps",
    "F": "frames",
    "M": "mel bands",
}
"""What each letter means. Those that need more words:

- N counts support and query together, or pairs of which it does not matter whether they are either.
- R counts independent contents, inputs or measurements: each row is treated alike and alone.
- Z counts the places for streams in a memory that outlives a batch.
- Y counts what a retrieval, or an attention over a fixed memory, chooses among.
- G has the hidden units and the constant 1 that carries the output bias.
- A and V belong to the inner loop in hidden space (`model/inner/hidden`): gradients lie in the
  span of V rows of target dim, the output layer's and A anchors.
- T counts what a recording or a text is made of (samples, characters), F what neighbours of those
  are joined to.
"""
