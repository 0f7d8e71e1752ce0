"""What this node shows and believes as a TLS client: the contexts of what it dials."""

from __future__ import annotations

import ipaddress

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from broker.tls.files import UNREADABLE, Expiry, expiry_of, read_own, use_certificate
from broker.tls.profile import PROTOCOL, expect_name, set_basics, set_ciphers
from broker.tls.settings import ClientTls
from broker.tls.trust import believe


class ClientContext:
    """Makes connections to one server name. Raises ValueError for files that can't be used."""

    def __init__(self, settings: ClientTls, host: str) -> None:
        self.expiries: list[Expiry] = []
        self._host = settings.server_name or host
        self._verifies = settings.verify
        self._context = context = set_basics(SSL.Context(SSL.TLS_CLIENT_METHOD))
        set_ciphers(context, None)
        context.set_alpn_protos([PROTOCOL])
        if settings.verify:
            self.expiries += believe(context, settings.ca, settings.crl, SSL.VERIFY_PEER, self._host)
            expect_name(context, self._host, self._address)
        if settings.certificate is not None:
            own = settings.certificate
            self.expiries.append(expiry_of(own.cert, read_own(own.cert)))
            use_certificate(context, own)

    def __call__(self) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if not self._address:
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection

    @property
    def _address(self) -> bytes:
        """Packed; b"" where the host is a name."""
        try:
            return ipaddress.ip_address(self._host).packed
        except ValueError:
            return b""

    def verify(self, connection: SSL.Connection) -> None:
        """After the handshake: the certificate must be that of the host (RFC 9525). Raises ValueError."""
        if not self._verifies:
            return
        try:
            if self._address:
                verify_ip_address(connection, self._host)
            else:
                verify_hostname(connection, self._host)
        except (VerificationError, CertificateError):
            raise ValueError(f"the certificate is valid, but not for {self._host}") from None
        except UNREADABLE as error:
            raise ValueError(f"the certificate can't be read: {error}") from None


def check_client(settings: ClientTls) -> tuple[list[str], list[str]]:
    """What is wrong with the files, and what soon will be, one sentence each."""
    try:
        context = ClientContext(settings, "localhost")
    except ValueError as error:
        return [str(error)], []
    return [], [warning for each in context.expiries if (warning := each.warning())]
