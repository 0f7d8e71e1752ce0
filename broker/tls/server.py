"""What a port presents: contexts by server name, and one connection per client."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL

from broker.tls.files import (
    Expiry,
    Staple,
    expiry_of,
    names_of,
    read_own,
    read_staple,
    use_certificate,
)
from broker.tls.profile import PROTOCOL, VERSIONS, set_basics, set_ciphers, set_groups
from broker.tls.settings import Certificate, ServerTls
from broker.tls.trust import believe

MODES = {
    "none": SSL.VERIFY_NONE,
    "request": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class ServerContexts:
    """Calling it makes the connection of one more client. Files are read once, when it is made.

    Ticket keys are those of the first context, `first`, in which nothing was set yet (None: a fresh one).
    Raises ValueError, with a sentence for people, for files that can't be used.
    """

    def __init__(self, settings: ServerTls, name: str = "", first: SSL.Context | None = None) -> None:
        self.settings = settings
        self.expiries: list[Expiry] = []
        self._by_name: dict[str, SSL.Context] = {}
        contexts = []
        for certificate in settings.certificates:
            leaf, context, expiries = make_context(settings, certificate, name, first)
            first = None
            contexts.append(context)
            self.expiries += [each for each in expiries if each not in self.expiries]
            for each in names_of(leaf):
                self._by_name.setdefault(each, context)
            if len(settings.certificates) > 1:
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
    settings: ServerTls, certificate: Certificate, name: str, raw: SSL.Context | None = None
) -> tuple[x509.Certificate, SSL.Context, list[Expiry]]:
    leaf = read_own(certificate.cert)
    expiries: list[Expiry | None] = [expiry_of(certificate.cert, leaf)]
    context = set_basics(raw or SSL.Context(SSL.TLS_SERVER_METHOD))
    context.set_min_proto_version(VERSIONS[settings.min_version])
    # Tickets resume sessions without memory of ours; sessions of other ports are not taken.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(f"broker {name}".encode()[:32])
    if not settings.resumes:
        context.set_options(SSL.OP_NO_TICKET)
    context.set_alpn_select_callback(choose_protocol)
    set_ciphers(context, settings.ciphers)
    set_groups(context, settings.groups)
    use_certificate(context, certificate)
    if certificate.ocsp is not None:
        staple = read_staple(certificate.ocsp, leaf)
        expiries.append(staple.expiry)
        context.set_ocsp_server_callback(present, staple)
    if settings.client_mode != "none" and settings.client_ca is not None:
        expiries += believe(context, settings.client_ca, settings.client_crl, MODES[settings.client_mode])
        context.load_client_ca(bytes(settings.client_ca))  # whose names clients are told
    return leaf, context, [each for each in expiries if each is not None]


def choose_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return PROTOCOL if PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def present(_connection: SSL.Connection, staple: Staple | None) -> bytes:
    return staple.current() if staple is not None else b""


def check_server(settings: ServerTls) -> tuple[list[str], list[str]]:
    """What is wrong with the files and choices of a port, and what soon will be, one sentence each."""
    problems: list[str] = []
    warnings: list[str] = []
    for certificate in settings.certificates:
        try:
            _, _, expiries = make_context(settings, certificate, "")
        except ValueError as error:
            problems.append(str(error))
            continue
        for expiry in expiries:
            own_and_over = expiry.kind == "certificate" and expiry.days_left() < 0
            if sentence := expiry.warning():
                (problems if own_and_over else warnings).append(sentence)
    return list(dict.fromkeys(problems)), list(dict.fromkeys(warnings))
