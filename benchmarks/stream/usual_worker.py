"""The usual worker: the same service as it is usually built, to hold the daemon against.

It is ours, an honest rendition of the tutorials' way; nobody's product. Each choice, and why it is
the usual one:

- kafka-python's consumer in a group, MessagePack by its `value_deserializer`, `poll()` with the
  client's own defaults, one commit per poll after a flush: its documentation's example;
- a stream's window is a Redis list: one pipeline per event appends, trims and reads the window
  back, so that the worker itself keeps no state and may be restarted at any time;
- every event of one pair adapts its stream: MAML's inner loop in torch.autograd on that stream's
  support, as in PyTorch MAML tutorials (clone, loss, `autograd.grad`, subtract; higher does the
  same inside);
- the whole mapping, float32, in one safetensors record per event by KafkaProducer, with its
  defaults.

It leaves out what the daemon does besides: judging on the query, a gate, dead letters, fencing,
metrics. That is in its favour.

    python -m benchmarks.stream.usual_worker        (settings: ADAPTD_*)

S = support pairs, D = source dim, E = target dim
"""

from typing import Any

import msgpack
import numpy as np
import redis
import torch
from kafka import KafkaConsumer, KafkaProducer
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from benchmarks.process import work_until_stopped
from daemon import config
from daemon.config import Settings
from daemon.wire.adapted_mapping import HEADER_PREFIX
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import load_meta_init

NAMES = ("w1", "b1", "w2", "b2")


class UsualInnerLoop:
    """MAML's inner loop for one stream at a time."""

    def __init__(self, theta: MetaInit) -> None:
        self._theta = [torch.tensor(theta.mapping[name]) for name in NAMES]
        self._rates = theta.learner.tensors["rates"].tolist()

    def adapted(self, x_SD: Tensor, y_SE: Tensor) -> dict[str, Tensor]:
        """Returns θ′ of this support."""
        parameters = [parameter.clone().requires_grad_() for parameter in self._theta]
        for rates in self._rates:
            w1, b1, w2, b2 = parameters
            hidden = functional.gelu(functional.linear(x_SD, w1, b1))
            loss = functional.mse_loss(functional.linear(hidden, w2, b2), y_SE)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                parameters = [
                    (p - rate * g).requires_grad_()
                    for p, rate, g in zip(parameters, rates, gradients, strict=True)
                ]
        return {name: p.detach() for name, p in zip(NAMES, parameters, strict=True)}


class UsualWorker:
    """Consume, keep the window, adapt, produce; event by event."""

    def __init__(self, settings: Settings) -> None:
        if settings.meta_init is None:
            raise ValueError("ADAPTD_META_INIT names no θ")
        torch.set_num_threads(settings.torch_threads or torch.get_num_threads())
        self._settings = settings
        self._window_size = settings.support_size + settings.query_size
        theta = load_meta_init(settings.meta_init)
        self._source_dim, self._target_dim = theta.source_dim, theta.target_dim
        self._inner_loop = UsualInnerLoop(theta)
        self._redis = redis.Redis.from_url(settings.redis_url.get_secret_value())
        self._consumer = KafkaConsumer(
            settings.kafka_events_topic,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            group_id=settings.kafka_group_id,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            value_deserializer=msgpack.unpackb,
        )
        self._producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)

    def turn(self) -> None:
        """Does one poll and what belongs to it."""
        for partition, records in self._consumer.poll(timeout_ms=1_000).items():
            for record in records:
                self._take(partition.partition, record)
        self._producer.flush()
        self._consumer.commit()

    def _take(self, partition: int, record: Any) -> None:
        pairs = record.value["pairs"]
        window = self._slide(record.key, pairs)
        if len(pairs) > 1:
            return  # it fills the window, before anything is measured
        support = b"".join(window[: self._settings.support_size])
        xy = torch.from_numpy(np.frombuffer(support, "<f4").copy())
        xy = xy.view(-1, self._source_dim + self._target_dim)
        x_SD, y_SE = xy[:, : self._source_dim], xy[:, self._source_dim :]
        facts = {"partition": partition, "version": record.offset}
        self._producer.send(
            self._settings.kafka_mappings_topic,
            key=record.key,
            value=save(self._inner_loop.adapted(x_SD, y_SE)),
            headers=[(HEADER_PREFIX + name, str(fact).encode()) for name, fact in facts.items()],
        )

    def _slide(self, stream: bytes, pairs: list[dict[str, Any]]) -> list[bytes]:
        """Appends to a stream's window; returns its newest pairs, oldest first, each x then y."""
        key = b"usual:%b" % stream
        pipeline = self._redis.pipeline()
        pipeline.rpush(key, *(pair["source"]["data"] + pair["target"]["data"] for pair in pairs))
        pipeline.ltrim(key, -self._window_size, -1)
        pipeline.lrange(key, 0, -1)
        window: list[bytes] = pipeline.execute()[2]
        return window

    def close(self) -> None:
        """Flushes, and leaves the group."""
        self._producer.close()
        self._consumer.close()
        self._redis.close()


if __name__ == "__main__":
    worker = UsualWorker(config.load_settings(None))
    work_until_stopped(worker.turn, worker.close)
