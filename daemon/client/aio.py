"""The subscriber for programs on asyncio.

    async with AsyncMappingSubscriber(MappingSubscriber("kafka:9092")) as mappings:
        await mappings.wait_until_current(timeout_s=30)
        async for change in mappings.changes():
            ...

Kafka is read on a thread, as always; nothing here blocks the event loop. `predict` is a short
computation and no coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from numpy.typing import ArrayLike

from daemon.client.changes import Changes
from daemon.client.newest import Swapped
from daemon.client.served import ServedMapping
from daemon.client.subscriber import MappingSubscriber, Prediction, SubscriberStatus


class AsyncMappingSubscriber:
    """A MappingSubscriber whose waits are awaited. It is started and closed with the block."""

    def __init__(self, subscriber: MappingSubscriber) -> None:
        self.subscriber = subscriber

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.subscriber.start)  # a snapshot may be large
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self.subscriber.close)

    async def wait_until_current(self, timeout_s: float) -> None:
        """See MappingSubscriber.wait_until_current."""
        await asyncio.to_thread(self.subscriber.wait_until_current, timeout_s)

    def predict(self, stream: str, x: ArrayLike) -> Prediction:
        """See MappingSubscriber.predict."""
        return self.subscriber.predict(stream, x)

    def get(self, stream: str) -> ServedMapping | None:
        """See MappingSubscriber.get."""
        return self.subscriber.get(stream)

    def status(self) -> SubscriberStatus:
        """See MappingSubscriber.status."""
        return self.subscriber.status()

    def changes(self) -> AsyncIterator[Swapped]:
        """Returns each change of a stream from this call on, until the subscriber is closed. A slow
        reader gets the newest of a stream and not those before."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(ready.set)

        return self._each(self.subscriber.open_changes(Changes(wake)), ready)

    async def _each(self, changes: Changes, ready: asyncio.Event) -> AsyncIterator[Swapped]:
        try:
            while not changes.closed:
                ready.clear()
                while (change := changes.take(timeout_s=0)) is not None:
                    yield change
                if not changes.closed:
                    await ready.wait()
        finally:
            self.subscriber.close_changes(changes)
