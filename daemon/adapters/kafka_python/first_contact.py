"""Why brokers do not take us. kafka-python retries whatever happens, and in the end reports only
that it found no broker; this module tries the same steps itself, one after another, and says which
one failed. It speaks just enough of Kafka's protocol: ApiVersions, SaslHandshake, SaslAuthenticate.
"""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from typing import Any

from kafka.errors import KafkaError
from kafka.net.sasl import get_sasl_mechanism

from daemon.adapters import kafka_refusals as refusals
from daemon.config import Settings
from daemon.errors import Misconfigured

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE = 33, 34
TIMEOUT_S, MOST_SERVERS = 2.0, 3
"""Of one step, and so many bootstrap servers: a turn must not last for long."""
LEAST_ANSWER, LONGEST_ANSWER = 10, 1_000_000
"""Bytes. A port that speaks TLS answers with what looks like the length of 350 MB."""


class _Refusal(Exception):
    """A broker answers, and refuses us. The message is what to tell a person."""


def refusal(settings: Settings, sasl_arguments: dict[str, Any]) -> str | None:
    """Tries each bootstrap server, and returns in a line what they refuse; None if one of them
    takes us or none answers. `sasl_arguments` are those of the client's constructor. Raises
    Misconfigured when a certificate or a key cannot be used."""
    context = tls_context(settings)
    found = None
    for address in settings.kafka_bootstrap_servers.split(",")[:MOST_SERVERS]:
        host, _, port = address.rpartition(":")
        contact = _Contact(host, int(port), settings, context)
        try:
            contact.make(sasl_arguments)
        except _Refusal as e:
            found = str(e)
        except OSError:
            continue
        else:
            return None
    return found


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Returns what TLS needs by these settings, None where they ask for none. Raises Misconfigured
    when a certificate or a key cannot be used."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    context = ssl.create_default_context()
    if settings.kafka_ssl_cafile is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with _usable("ADAPTD_KAFKA_SSL_CAFILE", settings.kafka_ssl_cafile):
            context.load_verify_locations(settings.kafka_ssl_cafile)
    if settings.kafka_ssl_certfile is not None:
        name = "ADAPTD_KAFKA_SSL_CERTFILE and ADAPTD_KAFKA_SSL_KEYFILE"
        with _usable(name, settings.kafka_ssl_certfile):
            context.load_cert_chain(settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
    return context


class _usable:
    """Raises Misconfigured in place of what reading a PEM file raises."""

    def __init__(self, setting: str, path: object) -> None:
        self._setting, self._path = setting, path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):  # ssl.SSLError is one
            raise Misconfigured(f"{self._setting} = '{self._path}': {error}") from error


class _Contact:
    """One conversation with one broker."""

    def __init__(
        self, host: str, port: int, settings: Settings, context: ssl.SSLContext | None
    ) -> None:
        self._host, self._port, self._context = host, port, context
        self._mechanism = settings.kafka_sasl_mechanism
        self._sasl = settings.kafka_security_protocol.startswith("SASL")
        self._certified = settings.kafka_ssl_certfile is not None
        self._timeout_s = min(TIMEOUT_S, settings.kafka_timeout_ms / 1000)

    def _connected(self) -> socket.socket:
        return socket.create_connection((self._host, self._port), self._timeout_s)

    def make(self, sasl_arguments: dict[str, Any]) -> None:
        """Raises _Refusal, and OSError when there is no answer."""
        if self._context is None:
            with self._connected() as link:
                self._greet_in_plain(link)
                self._settle_sasl(link, sasl_arguments)
            return
        try:
            plain = self._connected()
            with plain, self._context.wrap_socket(plain, server_hostname=self._host) as link:
                self._greet(link)
                self._settle_sasl(link, sasl_arguments)
        except ssl.SSLError as e:
            if words := refusals.words_for(str(e)):
                raise _Refusal(f"{words} ({e})") from e
            self._refuse_if_plain(e)
            raise
        except ConnectionError as e:
            self._refuse_if_plain(e)
            raise

    def _greet(self, link: socket.socket) -> None:
        """A client certificate is missed only now, and brokers may just hang up then."""
        try:
            _ask(link, API_VERSIONS)
        except (ConnectionError, ssl.SSLEOFError) as e:
            words = refusals.REFUSED_CERTIFICATE if self._certified else refusals.NO_CERTIFICATE
            raise _Refusal(words) from e

    def _refuse_if_plain(self, cause: Exception) -> None:
        with suppress(OSError), self._connected() as link:
            _ask(link, API_VERSIONS)
            raise _Refusal(refusals.NO_TLS) from cause

    def _greet_in_plain(self, link: socket.socket) -> None:
        try:
            _ask(link, API_VERSIONS)
        except ConnectionError as e:
            blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
            with suppress(OSError), self._connected() as again, blind.wrap_socket(again):
                raise _Refusal(refusals.ONLY_TLS) from e
            raise

    def _settle_sasl(self, link: socket.socket, arguments: dict[str, Any]) -> None:
        name = self._mechanism if self._sasl and self._mechanism else "PLAIN"
        code, offered = _offered(_ask(link, SASL_HANDSHAKE, 1, _text(name)))
        if self._sasl and code == ILLEGAL_SASL_STATE:
            raise _Refusal(refusals.NO_SASL)
        if not self._sasl:
            if code != ILLEGAL_SASL_STATE:
                raise _Refusal(refusals.ONLY_SASL)
            return
        if code == UNSUPPORTED_SASL_MECHANISM or name not in offered:
            raise _Refusal(f"{refusals.UNKNOWN_MECHANISM} = {name!r}, but {', '.join(offered)}")
        try:
            self._authenticate(link, get_sasl_mechanism(name)(host=self._host, **arguments))
        except (KafkaError, ValueError) as e:
            raise _Refusal(f"{refusals.WRONG_CREDENTIALS} ({e})") from e

    def _authenticate(self, link: socket.socket, mechanism: Any) -> None:
        while not mechanism.is_done():
            token = mechanism.auth_bytes()
            answer = _ask(link, SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
            (code, length) = struct.unpack_from(">hh", answer)
            if code:
                said = answer[4 : 4 + max(0, length)].decode(errors="replace")
                raise _Refusal(f"{refusals.WRONG_CREDENTIALS} ({said})")
            at = 4 + max(0, length)
            (size,) = struct.unpack_from(">i", answer, at)
            mechanism.receive(answer[at + 4 : at + 4 + max(0, size)])
        if not mechanism.is_authenticated():
            raise _Refusal(refusals.WRONG_CREDENTIALS)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _ask(link: socket.socket, api: int, version: int = 0, body: bytes = b"") -> bytes:
    """Sends a request and returns its answer without length and correlation id. Raises OSError,
    and ConnectionError where the answer is none of Kafka's."""
    request = struct.pack(">hhi", api, version, 1) + _text("adaptd") + body
    link.sendall(struct.pack(">i", len(request)) + request)
    (length,) = struct.unpack(">i", _exactly(link, 4))
    if not LEAST_ANSWER <= length <= LONGEST_ANSWER:
        raise ConnectionError("not an answer of Kafka's")
    return _exactly(link, length)[4:]


def _exactly(link: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        some = link.recv(size - len(taken))
        if not some:
            raise ConnectionError("closed by the broker")
        taken += some
    return taken


def _offered(answer: bytes) -> tuple[int, list[str]]:
    """Returns the error code of a handshake's answer, and the mechanisms that the broker offers."""
    code, count = struct.unpack_from(">hi", answer)
    at, names = 6, []
    for _ in range(count):
        (length,) = struct.unpack_from(">h", answer, at)
        names.append(answer[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return code, names
