"""Remakers of the θs that published mappings come from, each made when it is first needed."""

from __future__ import annotations

from contextlib import closing, suppress

from daemon.adapters.kafka_python.meta_inits import KafkaPythonMetaInits
from daemon.config import Settings
from daemon.replay.remake import Remaker
from daemon.worker.wiring import engine_of
from model.theta.meta_init import MetaInit
from model.theta.meta_init_file import meta_init_from_bytes
from model.values.errors import BadMetaInit


class Remakers:
    """By content hash of θ: of the one given, and of those in the topic of θs whose features are
    the same."""

    def __init__(self, settings: Settings, theta: MetaInit) -> None:
        self._settings = settings
        self.first = Remaker(settings, engine_of(settings, theta))
        self._encoder = theta.encoder_version
        self._made: dict[str, Remaker | None] = {theta.content_hash: self.first}

    def __call__(self, content_hash: str) -> Remaker | None:
        """Returns the remaker of a θ, None where it is not known or needs other features. Raises
        Unavailable, Misconfigured, Refused."""
        if content_hash not in self._made:
            theta = self._published(content_hash)
            fits = theta is not None and theta.encoder_version == self._encoder
            self._made[content_hash] = (
                Remaker(self._settings, engine_of(self._settings, theta))
                if theta and fits
                else None
            )
        return self._made[content_hash]

    def _published(self, content_hash: str) -> MetaInit | None:
        if not self._settings.follow_meta_inits:
            return None
        with closing(KafkaPythonMetaInits(self._settings, "adaptd-replay")) as topic:
            for each in topic.catalogue().published.values():
                if each.content_hash != content_hash or not (data := topic.fetch(each)):
                    continue
                with suppress(BadMetaInit):
                    theta = meta_init_from_bytes(data, each.version)
                    if theta.content_hash == content_hash:  # the headers may say what is not so
                        return theta
        return None
