"""What to say when Kafka refuses a worker, for both clients. Each line names what to change."""

from __future__ import annotations

SECURITY = "ADAPTD_KAFKA_SECURITY_PROTOCOL"
WRONG_CREDENTIALS = (
    "the brokers refuse the credentials: ADAPTD_KAFKA_SASL_USERNAME and "
    "ADAPTD_KAFKA_SASL_PASSWORD, or the token of ADAPTD_KAFKA_OAUTH_TOKEN_PROVIDER"
)
UNKNOWN_MECHANISM = "the brokers do not offer ADAPTD_KAFKA_SASL_MECHANISM"
NO_TLS = f"the brokers' port does not speak TLS: {SECURITY}, or the port is another listener's"
ONLY_TLS = f"the brokers' port speaks TLS: {SECURITY} must be SSL or SASL_SSL"
NO_SASL = f"the brokers' port asks for no credentials: {SECURITY} must be PLAINTEXT or SSL"
ONLY_SASL = f"the brokers' port asks for credentials: {SECURITY} must be SASL_PLAINTEXT or SASL_SSL"
UNKNOWN_AUTHORITY = (
    "the brokers' certificate is signed by no authority in ADAPTD_KAFKA_SSL_CAFILE (if unset, the "
    "system's)"
)
OTHER_HOST = (
    "the brokers' certificate is for other hosts than those in ADAPTD_KAFKA_BOOTSTRAP_SERVERS or "
    "in the brokers' advertised.listeners"
)
NO_CERTIFICATE = (
    "the brokers ask for a client certificate that they trust: ADAPTD_KAFKA_SSL_CERTFILE and "
    "ADAPTD_KAFKA_SSL_KEYFILE"
)
UNVERIFIED = (
    "the brokers' certificate is signed by no authority in ADAPTD_KAFKA_SSL_CAFILE (if unset, the "
    "system's), or it is for other hosts than those in ADAPTD_KAFKA_BOOTSTRAP_SERVERS"
)
REFUSED_CERTIFICATE = "the brokers refuse the client certificate, ADAPTD_KAFKA_SSL_CERTFILE"
LACKS_A_RIGHT = "this user lacks a right (ACL), see adaptd check"

BY_TEXT = (
    (("hostname mismatch", "ip address mismatch"), OTHER_HOST),
    (("broker certificate could not be verified",), UNVERIFIED),  # librdkafka does not say why
    (("certificate verify failed", "certificate_verify_failed"), UNKNOWN_AUTHORITY),
    (("certificate required", "certificate_required"), NO_CERTIFICATE),
    (
        (
            *("alert bad certificate", "alert_bad_certificate", "alert unknown ca"),
            *("alert_unknown_ca", "alert certificate unknown", "alert_certificate_unknown"),
        ),
        REFUSED_CERTIFICATE,
    ),
    (("wrong version number", "wrong_version_number", "a plaintext broker listener"), NO_TLS),
    (("connecting to a ssl listener",), ONLY_TLS),
    (("connecting to a sasl listener",), ONLY_SASL),
    (("not valid in current sasl state",), NO_SASL),
    (("unsupported sasl mechanism", "broker's supported mechanisms"), UNKNOWN_MECHANISM),
    (("authentication failed", "invalid credentials"), WRONG_CREDENTIALS),
)
"""Words by parts of what OpenSSL, or librdkafka around it, says."""


def words_for(text: str) -> str | None:
    """Returns what to say of an error with this text; None where it is no refusal."""
    lower = text.lower()
    for parts, words in BY_TEXT:
        if any(part in lower for part in parts):
            return words
    return None
