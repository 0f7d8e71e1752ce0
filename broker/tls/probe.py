"""A look at somebody's TLS from outside: what is negotiated, what is presented, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509 import ocsp
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from broker.tls.describe import describe, printable
from broker.tls.files import UNREADABLE, expiry_of, use_certificate, weakness_of
from broker.tls.settings import Certificate
from broker.tls.stream import TlsFailed, TlsStream
from broker.tls.trust import FAILURES

READ_SIZE = 65536
LATE_ALERT_S = 1.0  # in TLS 1.3 a server refuses a client's certificate after the client's last word
VERSIONS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
OUTDATED = ("TLSv1", "TLSv1.1")
# All that no profile of today allows: without forward secrecy, or without authenticated encryption.
WEAK_CIPHERS = (
    b"ALL:!ECDHE+AESGCM:!ECDHE+CHACHA20:!ECDHE+AESCCM:!DHE+AESGCM:!DHE+CHACHA20:!DHE+AESCCM"
    b":!ARIA:!CAMELLIA:!PSK:@SECLEVEL=0"
)
WEAK_DIGESTS = ("md5", "sha1")
ASKED = b"read server certificate request"


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to look at, and as whom."""

    host: str
    port: int
    name: str  # asked for (SNI) and verified
    ca: Path | None = None
    own: Certificate | None = None
    timeout_s: float = 5.0


@dataclass(slots=True)
class Findings:
    """`shown` has plain values, for JSON; each problem is a sentence."""

    shown: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    errors: set[int] = field(default_factory=set)  # OpenSSL's, of verification
    asked: bool = False  # for a client certificate
    staple: bytes = b""


def probe(peer: Peer) -> Findings:
    """Raises OSError where there is no connection, ValueError for files that can't be used."""
    found = Findings()
    context = make_context(peer, found)
    try:
        with open_socket(peer) as sock:
            found.shown["address"] = sock.getpeername()[0]
            stream = open_stream(context, peer)
            shake(sock, stream)
            look(stream.connection, peer, found)
            look_for_late_alert(sock, stream, peer, found)
    except TlsFailed as failure:
        words = f"TLS failed: {failure}"
        if found.asked and peer.own is None:
            words = "a client certificate is required"
            found.shown["client_certificate"] = "required"
        found.problems.append(words)
    except TimeoutError:
        found.problems.append(f"the handshake was not over within {peer.timeout_s:g} s")
    if "version" in found.shown:
        look_at_versions(peer, found)
    return found


# --- connections -------------------------------------------------------------------


def open_socket(peer: Peer) -> socket.socket:
    return socket.create_connection((peer.host, peer.port), timeout=peer.timeout_s)


def make_context(peer: Peer, found: Findings) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if peer.ca is None:
        context.set_default_verify_paths()
    else:
        try:
            context.load_verify_locations(str(peer.ca))
        except SSL.Error:
            raise ValueError(f"{peer.ca} holds no CA certificates in PEM form") from None
    if peer.own is not None:
        use_certificate(context, peer.own)
    context.set_alpn_protos([b"h2", b"http/1.1"])

    def note_error(
        _connection: SSL.Connection, _certificate: crypto.X509, error: int, _depth: int, good: int
    ) -> bool:
        if not good:
            found.errors.add(error)
        return True  # what else there is to see

    def note_state(connection: SSL.Connection, _where: int, _result: int) -> None:
        found.asked = found.asked or ASKED in connection.get_state_string()

    def note_staple(_connection: SSL.Connection, data: bytes, _argument: object) -> bool:
        found.staple = data
        return True

    context.set_verify(SSL.VERIFY_PEER, note_error)
    context.set_info_callback(note_state)
    context.set_ocsp_client_callback(note_staple)
    return context


def open_stream(context: SSL.Context, peer: Peer) -> TlsStream:
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if not is_address(peer.name):
        connection.set_tlsext_host_name(peer.name.encode("idna"))
    connection.request_ocsp()
    return TlsStream(connection)


def shake(sock: socket.socket, stream: TlsStream) -> None:
    """The handshake. Raises TlsFailed, TimeoutError."""
    while True:
        try:
            done = stream.handshake()
        finally:
            sock.sendall(stream.pending())
        if done:
            return
        try:
            data = sock.recv(READ_SIZE)
        except ConnectionError:
            data = b""
        if not data:
            raise TlsFailed("the other side ended the connection during the handshake; does it speak TLS?")
        stream.feed(data)


def look_for_late_alert(sock: socket.socket, stream: TlsStream, peer: Peer, found: Findings) -> None:
    mode = "asked for" if found.asked else "not asked for"
    found.shown["client_certificate"] = mode
    if not found.asked:
        return
    sock.settimeout(LATE_ALERT_S)
    try:
        while data := sock.recv(READ_SIZE):
            stream.feed(data)
            stream.read()
    except TlsFailed as failure:
        if peer.own is None:
            found.shown["client_certificate"] = "required"
            found.problems.append("a client certificate is required: give one with --cert and --key")
        else:
            found.problems.append(f"the client certificate was refused: {failure}")
    except OSError:
        return  # it waits for a request: all is well


# --- what is seen ------------------------------------------------------------------


def look(connection: SSL.Connection, peer: Peer, found: Findings) -> None:
    try:
        chain = connection.get_peer_cert_chain(as_cryptography=True) or []
    except UNREADABLE as error:
        found.problems.append(f"a certificate can't be read: {error}")
        chain = []
    group = getattr(connection, "get_group_name", lambda: None)()
    found.shown |= {
        "version": connection.get_protocol_version_name(),
        "cipher": connection.get_cipher_name(),
        "group": group,
        "alpn": connection.get_alpn_proto_negotiated().decode("ascii", "replace") or None,
        "chain": [describe(each) for each in chain],
    }
    words = [
        FAILURES.get(error, f"the certificate can't be verified (OpenSSL's error {error})")
        for error in sorted(found.errors)
    ]
    found.problems += dict.fromkeys(words)  # several errors may mean the same
    if not chain:
        return
    look_at_name(connection, peer, found)
    look_at_chain(chain, found)
    look_at_staple(chain[0], found)


def look_at_name(connection: SSL.Connection, peer: Peer, found: Findings) -> None:
    try:
        if is_address(peer.name):
            verify_ip_address(connection, peer.name)
        else:
            verify_hostname(connection, peer.name)
    except (VerificationError, CertificateError):
        found.problems.append(f"the certificate is not for {peer.name}")
    except ValueError as error:
        found.problems.append(f"the names in the certificate can't be read: {error}")


def look_at_chain(chain: list[x509.Certificate], found: Findings) -> None:
    for place, each in enumerate(chain):
        what = (
            "the certificate"
            if place == 0
            else f"the CA certificate {printable(each.subject.rfc4514_string())}"
        )
        if weakness := weakness_of(each):
            found.problems.append(f"{what} has a weak key: {weakness}")
        digest = each.signature_hash_algorithm
        if digest is not None and digest.name in WEAK_DIGESTS and each.subject != each.issuer:
            found.problems.append(
                f"{what} is signed with {digest.name.upper()}, which nobody trusts any more"
            )
        expiry = expiry_of(Path(), each)
        if expiry.warning() and expiry.days_left() > 0:
            found.problems.append(f"{what} expires in {expiry.days_left():.0f} days")
    if {20, 21} & found.errors and len(chain) == 1 and chain[0].subject != chain[0].issuer:
        found.problems.append("it is sent alone: a CA between it and the root may be missing from the file")


def look_at_staple(leaf: x509.Certificate, found: Findings) -> None:
    found.shown["ocsp"] = None
    if not found.staple:
        if must_staple(leaf):
            found.problems.append("the certificate demands a stapled OCSP response, and there is none")
        return
    try:
        response = ocsp.load_der_ocsp_response(found.staple)
        status = response.certificate_status.name.lower()
        until = response.next_update_utc
    except ValueError:
        found.problems.append("the stapled OCSP response can't be read")
        return
    found.shown["ocsp"] = {"status": status, "next_update": until.isoformat() if until else None}
    if response.serial_number != leaf.serial_number:
        found.problems.append("the stapled OCSP response is that of another certificate")
    if status != "good":
        found.problems.append(f"the stapled OCSP response says that the certificate is {status}")
    if until is not None and until < datetime.now(UTC):
        found.problems.append("the stapled OCSP response is out of date")


def must_staple(leaf: x509.Certificate) -> bool:
    try:
        features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return x509.TLSFeatureType.status_request in features


# --- what else would be taken ------------------------------------------------------


def look_at_versions(peer: Peer, found: Findings) -> None:
    """One connection for each version, and one that offers nothing but weak ciphers."""
    taken = [name for name, number in VERSIONS.items() if accepts(peer, number, number, None)]
    found.shown["versions"] = taken
    for name in taken:
        if name in OUTDATED:
            found.problems.append(
                f"{name} is accepted, which has not been safe for years: allow 1.2 and 1.3 only"
            )
    weak = accepts(peer, SSL.TLS1_VERSION, SSL.TLS1_2_VERSION, WEAK_CIPHERS)
    if weak:
        found.problems.append(f"the weak cipher {weak} is accepted: allow ECDHE with GCM or ChaCha20 only")


def accepts(peer: Peer, lowest: int, highest: int, ciphers: bytes | None) -> str:
    """The cipher that was agreed on; "" where none was, or this machine's OpenSSL can't offer that."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        context.set_min_proto_version(lowest)
        context.set_max_proto_version(highest)
        old = highest < SSL.TLS1_2_VERSION
        context.set_cipher_list(ciphers or (b"ALL:@SECLEVEL=0" if old else b"ALL"))
        if peer.own is not None:
            use_certificate(context, peer.own)
        with open_socket(peer) as sock:
            stream = open_stream(context, peer)
            shake(sock, stream)
            return stream.connection.get_cipher_name() or ""
    except (SSL.Error, TlsFailed, OSError):
        return ""


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
