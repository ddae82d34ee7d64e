"""Prepares the image's lock for pip: `python split_lock.py LOCK [--torch-apart]`.

Writes requirements.txt and torch.txt beside it. Without the option requirements.txt is the whole
lock and torch.txt is empty. With it torch.txt holds torch's pin without hashes, for an index whose
wheels are other files, and requirements.txt leaves out torch and the CUDA packages it brings.
"""

import re
import sys
from pathlib import Path

TORCH_AND_CUDA = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)(?===)")


def entries(lock: str) -> list[str]:
    """Returns the lock's pins, each with the lines of hashes and comments that follow it."""
    return re.findall(r"^[\w.-]+==.*(?:\n[ #].*)*", lock, re.MULTILINE)


def split(lock: str) -> tuple[str, str]:
    """Returns the pins without torch and CUDA, and torch's pin without hashes."""
    pins = entries(lock)
    rest = [pin for pin in pins if not TORCH_AND_CUDA.match(pin)]
    torch = [pin.split(" ")[0] for pin in pins if pin.startswith("torch==")]
    return "\n".join(rest) + "\n", "\n".join(torch) + "\n"


def main(lock: Path, *, torch_apart: bool) -> None:
    """Writes both files beside the lock."""
    text = lock.read_text(encoding="utf-8")
    requirements, torch = split(text) if torch_apart else (text, "")
    lock.with_name("requirements.txt").write_text(requirements, encoding="utf-8")
    lock.with_name("torch.txt").write_text(torch, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), torch_apart="--torch-apart" in sys.argv[2:])
