"""Tensors that are made when they are first looked at: most mappings are never published."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from model.values.arrays import FloatArray


class LazyTensors(Mapping[str, FloatArray]):
    """Tensors by name, from a function that is called at most once."""

    def __init__(self, make: Callable[[], Mapping[str, FloatArray]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Mapping[str, FloatArray]:
        return self._make()

    def __getitem__(self, name: str) -> FloatArray:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)
