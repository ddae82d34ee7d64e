"""A real Kafka that asks who one is: TLS, client certificates, SASL, tokens and ACLs.

Listeners, each on a port of its own: `plain` (for the tests' own clients, who may do everything),
`tls` (asks for a client certificate), `scram` (TLS; SCRAM-SHA-512 and OAUTHBEARER), `sasl` (PLAIN
without TLS). The server's certificate is for the address 127.0.0.1 and for no name.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from daemon.local.kafka import start_kafka
from daemon.local.server import ServerPlace, free_port

USER, PASSWORD = "worker", "right"
NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates")


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    ca: Path
    other_ca: Path
    server: Path
    client: Path
    foreign_client: Path
    """Certificate and key; signed by the other authority."""


def make_certificates(folder: Path) -> Certificates:
    """Makes two authorities, and certificates with their keys (in one file)."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    def authority(name: str) -> None:
        openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )

    def signed(name: str, by: str, san: str) -> Path:
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        (folder / f"{name}.ext").write_text(f"subjectAltName={san}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt"),
        )
        both = folder / f"{name}.pem"
        both.write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
        return both

    authority("ca")
    authority("other")
    return Certificates(
        ca=folder / "ca.pem",
        other_ca=folder / "other.pem",
        server=signed("server", "ca", "IP:127.0.0.1"),
        client=signed("client", "ca", "DNS:client"),
        foreign_client=signed("foreign", "other", "DNS:client"),
    )


@dataclass(frozen=True)
class SecuredKafka:
    """Its addresses, and what an administrator does."""

    plain: str
    tls: str
    scram: str
    sasl: str
    certificates: Certificates
    restart: Callable[[], None]

    @contextmanager
    def admin(self) -> Iterator[Any]:
        with KafkaAdminClient(bootstrap_servers=self.plain) as admin:
            yield admin

    def set_password(self, password: str, user: str = USER) -> None:
        with self.admin() as admin:
            mechanism = ScramMechanism.SCRAM_SHA_512
            made = UserScramCredentialUpsertion(user, mechanism, password)
            admin.alter_user_scram_credentials([made])

    def allow(self, kind: str, name: str, *operations: str, user: str = USER) -> None:
        """Gives rights on a topic or a group."""
        pattern = ResourcePattern(ResourceType[kind.upper()], name)
        allowed = ACLPermissionType.ALLOW
        with self.admin() as admin:
            admin.create_acls(
                [
                    ACL(f"User:{user}", "*", ACLOperation[operation], allowed, pattern)
                    for operation in operations
                ]
            )

    def deny_all(self, user: str = USER) -> None:
        """Takes all rights away."""
        anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        with self.admin() as admin:
            admin.delete_acls(
                [ACLFilter(f"User:{user}", None, ACLOperation.ANY, ACLPermissionType.ANY, anything)]
            )


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    certificates = make_certificates(folder)
    plain, controller, tls, scram, sasl = (free_port() for _ in range(5))
    listeners = {"PLAINTEXT": plain, "TLS": tls, "SCRAM": scram, "SASL": sasl}
    addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
    protocols = (
        "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SCRAM:SASL_SSL,SASL:SASL_PLAINTEXT"
    )
    jaas = "org.apache.kafka.common.security"
    properties = {
        "listeners": f"{addresses},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": addresses,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": protocols,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:CN=client",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            f"{jaas}.scram.ScramLoginModule required;"
        ),
        "listener.name.scram.oauthbearer.sasl.jaas.config": (
            f"{jaas}.oauthbearer.OAuthBearerLoginModule required;"
        ),
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'{jaas}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
    }
    with start_kafka(properties=properties, at=ServerPlace(plain)) as server:
        made = SecuredKafka(
            f"127.0.0.1:{plain}",
            f"127.0.0.1:{tls}",
            f"127.0.0.1:{scram}",
            f"127.0.0.1:{sasl}",
            certificates,
            server.restart,
        )
        made.set_password(PASSWORD)
        yield made


def unsigned_token(valid_s: float = 3_600.0) -> tuple[str, float]:
    """A token as Kafka's own unsecured validator takes it: for tests. See `kafka_tokens`."""

    def part(facts: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode().rstrip("=")

    now = time.time()
    claims = {"sub": USER, "iat": now, "exp": now + valid_s}
    return f"{part({'alg': 'none'})}.{part(claims)}.", now + valid_s


def expired_token() -> tuple[str, float]:
    token, _ = unsigned_token(-10)
    return token, time.time() + 3_600
