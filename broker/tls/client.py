"""What this node shows and believes as a TLS client: the contexts of what it dials."""

from __future__ import annotations

import ipaddress

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from broker.tls.server import INTERMEDIATE, OP_NO_RENEGOTIATION, PROTOCOL, use_certificate
from broker.tls.settings import ClientTls


class ClientContext:
    """Makes connections to one server name. Raises ValueError for files that can't be used."""

    def __init__(self, settings: ClientTls, host: str) -> None:
        self._host = settings.server_name or host
        self._verifies = settings.verify
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(INTERMEDIATE.encode())
        context.set_alpn_protos([PROTOCOL])
        if settings.verify:
            context.set_verify(
                SSL.VERIFY_PEER, lambda _connection, _certificate, _error, _depth, good: bool(good)
            )
        if settings.ca is None:
            context.set_default_verify_paths()
        else:
            try:
                context.load_verify_locations(str(settings.ca))
            except SSL.Error:
                raise ValueError(f"{settings.ca} holds no CA certificates in PEM form") from None
        if settings.certificate is not None:
            use_certificate(context, settings.certificate)

    def __call__(self) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if not self._address:
            connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection

    @property
    def _address(self) -> bool:
        try:
            ipaddress.ip_address(self._host)
        except ValueError:
            return False
        return True

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
            raise ValueError(f"its certificate is valid, but not for {self._host}") from None


def check_client(settings: ClientTls) -> list[str]:
    """What is wrong with the files, one sentence each."""
    try:
        ClientContext(settings, "localhost")
    except ValueError as error:
        return [str(error)]
    return []
