"""What a port presents: contexts by server name, and one connection per client.

Defaults are Mozilla's intermediate profile (TLS 1.2 with forward secrecy and AEAD, TLS 1.3): https://wiki.mozilla.org/Security/Server_Side_TLS
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from broker.tls.settings import Certificate, ServerTls

INTERMEDIATE = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
MODES = {
    "none": SSL.VERIFY_NONE,
    "request": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
OP_NO_RENEGOTIATION = 1 << 30  # SSL_OP_NO_RENEGOTIATION, which pyOpenSSL has no name for
PROTOCOL = b"http/1.1"
SMALLEST_RSA = 2048


class ServerContexts:
    """Calling it makes the connection of one more client. Files are read once, when it is made.

    Raises ValueError, with a sentence for people, for files that can't be used.
    """

    def __init__(self, settings: ServerTls, name: str = "") -> None:
        self.settings = settings
        self._by_name: dict[str, SSL.Context] = {}
        self.expires: list[tuple[Path, datetime]] = []
        contexts = []
        for certificate in settings.certificates:
            leaf, context = make_context(settings, certificate, name)
            contexts.append(context)
            self.expires.append((certificate.cert, leaf.not_valid_after_utc))
            for each in names_of(leaf):
                self._by_name.setdefault(each, context)
            context.set_tlsext_servername_callback(self._choose)
        self._default = contexts[0]

    def __call__(self) -> SSL.Connection:
        connection = SSL.Connection(self._default, None)
        connection.set_accept_state()
        return connection

    def _choose(self, connection: SSL.Connection) -> None:
        found = self.context_for((connection.get_servername() or b"").decode("ascii", "replace"))
        if found is not self._default:
            connection.set_context(found)

    def context_for(self, name: str) -> SSL.Context:
        """The context for a server name: its own, that of a wildcard one label above, or the first."""
        name = name.lower().rstrip(".")
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._default


def make_context(
    settings: ServerTls, certificate: Certificate, name: str
) -> tuple[x509.Certificate, SSL.Context]:
    leaf = read_certificate(certificate.cert)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[settings.min_version])
    context.set_options(SSL.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # Tickets resume sessions without memory of ours; sessions of other ports are not taken.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(f"broker {name}".encode()[:32])
    context.set_alpn_select_callback(choose_protocol)
    try:
        context.set_cipher_list((settings.ciphers or INTERMEDIATE).encode())
    except SSL.Error:
        raise ValueError(f"ciphers: OpenSSL knows none of {settings.ciphers!r}") from None
    use_certificate(context, certificate)
    if settings.client_mode != "none" and settings.client_ca is not None:
        ask_clients(context, settings.client_ca, settings.client_mode)
    return leaf, context


def use_certificate(context: SSL.Context, certificate: Certificate) -> None:
    try:
        context.use_certificate_chain_file(str(certificate.cert))
    except SSL.Error:
        raise ValueError(
            f"{certificate.cert} is not a certificate chain in PEM form, or its key is too weak"
        ) from None
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, certificate.key.read_bytes(), b"")
    except OSError as error:
        raise ValueError(f"{certificate.key} can't be read: {error.strerror}") from None
    except (crypto.Error, ValueError):
        raise ValueError(f"{certificate.key} is not a private key in PEM form without a passphrase") from None
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error:
        raise ValueError(f"{certificate.key} is not the key of {certificate.cert}") from None


def ask_clients(context: SSL.Context, ca: Path, mode: str) -> None:
    try:
        context.load_verify_locations(str(ca))
        context.set_client_ca_list(
            [crypto.X509.from_cryptography(each).get_subject() for each in read_all(ca)]
        )
    except SSL.Error:
        raise ValueError(f"{ca} holds no CA certificates in PEM form") from None
    context.set_verify(MODES[mode], lambda _connection, _certificate, _error, _depth, good: bool(good))


def choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def read_all(path: Path) -> list[x509.Certificate]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError:
        found = []
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM form")
    return found


def read_certificate(path: Path) -> x509.Certificate:
    """The first of a file: its owner's. Refuses what browsers would."""
    leaf = read_all(path)[0]
    key = leaf.public_key()
    if isinstance(key, dsa.DSAPublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA
    ):
        raise ValueError(f"{path} has a weak key: use EC P-256 or RSA of {SMALLEST_RSA} bits or more")
    return leaf


def names_of(leaf: x509.Certificate) -> Iterator[str]:
    """DNS names of a certificate, in lower case; its common name where it has none (RFC 6125 6.4.4)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for name in names:
        yield name.lower().rstrip(".")


def check_server(settings: ServerTls) -> list[str]:
    """What is wrong with the files and choices of a port, one sentence each."""
    problems = []
    for certificate in settings.certificates:
        try:
            leaf, _ = make_context(settings, certificate, "")
        except ValueError as error:
            problems.append(str(error))
            continue
        if leaf.not_valid_after_utc < datetime.now(UTC):
            problems.append(f"{certificate.cert} has expired on {leaf.not_valid_after_utc:%Y-%m-%d}")
    return list(dict.fromkeys(problems))
