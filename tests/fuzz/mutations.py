"""Makes bad inputs of good ones: bytes that are changed, and structures that are changed and
written anew, so that readers get past the first check."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgpack

DEEP = "@@deep@@"
"""Stands in a structure for a value that is nested too deep for an encoder to write."""
LONG = "@@long@@"
"""Stands for an integer of as many digits as a reader may accept."""
LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**63, 2**64 - 1)
STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "nan",
    "𝕏" * 70,
    "\\ud800",
    "F64",
    "BOOL",
    "BF16",
    "F8_E4M3",
    "F4",
    "float16",
    "@active",
    [],
    {},
    [[]],
    [1, -1],
    [2**62, 2**62],
    [0, 2**63],
    [1] * 100,
    {"": None},
    {"kind": []},
    DEEP,
    LONG,
)
NEWER_MSGPACK: tuple[Any, ...] = (
    b"\xff\xfe",
    msgpack.ExtType(5, b"abc"),
    msgpack.Timestamp(2**63 - 1, 999_999_999),
    msgpack.Timestamp(-1, 0),
    {1: 2},
    {None: [b""]},
)


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """Returns the bytes with one to four changes."""
    made = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at, to = sorted(random.randrange(len(made) + 1) for _ in range(2))
        match random.randrange(7):
            case 0 if made:
                made[at % len(made)] ^= 1 << random.randrange(8)
            case 1 if made:
                made[at % len(made)] = random.choice((0, 0x7F, 0x80, 0x91, 0xC1, 0xDF, 0xFF))
            case 2:
                del made[at : min(to, at + 64)]
            case 3:
                made[at:at] = random.randbytes(random.randint(1, 8))
            case 4:
                made[at:at] = made[at : min(to, at + 64)]
            case 5:
                length = random.choice(LENGTHS).to_bytes(8, random.choice(("little", "big")))
                made[at : at + 8] = length[: random.choice((1, 2, 4, 8))]
            case _:
                del made[at:]
    return bytes(made)


def mutated_json(text: bytes, random: Random) -> bytes:
    """Returns a JSON text whose value has one to three changes."""
    tree = json.loads(text)
    for _ in range(random.randint(1, 3)):
        tree = _changed(tree, random, STRANGE)
    return _as_json(tree, random)


def mutated_msgpack(data: bytes, random: Random) -> bytes:
    """Returns a MessagePack value with one to three changes."""
    tree = msgpack.unpackb(data)
    for _ in range(random.randint(1, 3)):
        tree = _changed(tree, random, STRANGE + NEWER_MSGPACK)
    deep = b"\x91" * random.choice((30, 70, 600, 5_000)) + b"\xc0"
    return bytes(msgpack.packb(tree)).replace(b"\xa8" + DEEP.encode(), deep)


def mutated_safetensors(data: bytes, random: Random) -> bytes:
    """Returns a safetensors file whose header was changed, or the JSON in its metadata, with the
    right length in front."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    inner = [name for name, text in header["__metadata__"].items() if text.startswith(("{", "["))]
    if inner and random.random() < 0.5:
        name = random.choice(inner)
        changed = mutated_json(header["__metadata__"][name].encode(), random)
        header["__metadata__"][name] = changed.decode(errors="replace")
        text = json.dumps(header).encode()
    elif random.random() < 0.1:
        header |= {random.choice(list(header)): random.choice(STRANGE)}
        text = _as_json(header, random)
    else:
        text = mutated_json(data[8 : 8 + size], random)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _changed(tree: Any, random: Random, values: tuple[Any, ...]) -> Any:
    """Returns the tree with one node replaced, removed, doubled or renamed."""
    if not isinstance(tree, dict | list) or not tree or random.random() < 0.1:
        return random.choice(values)
    if isinstance(tree, list):
        at = random.randrange(len(tree))
        changed = _changed(tree[at], random, values)
        return tree[:at] + random.choice(([], [changed], [changed] * 2)) + tree[at + 1 :]
    name = random.choice(list(tree))
    match random.randrange(8):
        case 0:
            return {n: value for n, value in tree.items() if n != name}
        case 1:
            return {f"{n}x" if n == name else n: value for n, value in tree.items()}
        case 2:
            return tree | {random.choice(("", "kind", "__metadata__", "type")): tree[name]}
        case _:
            return tree | {name: _changed(tree[name], random, values)}


def _as_json(tree: Any, random: Random) -> bytes:
    depth = random.choice((30, 70, 600, 5_000))
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    text = text.replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    text = text.replace(f'"{LONG}"', "9" * random.choice((20, 400, 4_299, 4_300, 4_400)))
    if random.random() < 0.05:  # a name twice
        text = (
            text.replace('": ', '": 0, "', 1)
            if random.random() < 0.5
            else text.replace("{", '{"a": 1, "a": 2, ', 1)
        )
    return text.encode(errors="surrogatepass")
