"""TLS by the standard library, for what asyncio and http.client carry: the admin port and its commands.

The core moves bytes over pyOpenSSL's connections; these few connections need no more than `ssl`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from broker.tls.files import Expiry, expiry_of, expiry_of_crl, names_of, read_crls, read_own
from broker.tls.profile import INTERMEDIATE, PROTOCOL
from broker.tls.settings import Certificate, ServerTls

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
MODES = {"none": ssl.CERT_NONE, "request": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
OPTIONS = ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE


class StandardTls:
    """The context of a port, chosen anew for each client by the name that it asks for.

    Files are read once, when it is made. ValueError, with a sentence for people: they can't be used.
    """

    def __init__(self, settings: ServerTls) -> None:
        self.names: list[str] = []
        self.expiries: list[Expiry] = []
        self._by_name: dict[str, ssl.SSLContext] = {}
        contexts = []
        for certificate in settings.certificates:
            leaf = read_own(certificate.cert)
            contexts.append(_server_context(settings, certificate))
            self.expiries.append(expiry_of(certificate.cert, leaf))
            for name in names_of(leaf):
                self.names.append(name)
                self._by_name.setdefault(name, contexts[-1])
        for path in settings.client_crl:
            self.expiries += filter(None, (expiry_of_crl(path, each) for each in read_crls(path)))
        self.context = contexts[0]
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        asked = (name or "").lower().rstrip(".")
        wildcard = "*." + asked.partition(".")[2]
        found = self._by_name.get(asked) or self._by_name.get(wildcard)
        if found is not None and found is not self.context:
            connection.context = found

    def is_named(self, host: str) -> bool:
        """Whether one of the certificates is that of the host."""
        return host in self.names or "*." + host.partition(".")[2] in self.names


def _server_context(settings: ServerTls, certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version]
    context.options |= OPTIONS | (0 if settings.resumes else ssl.OP_NO_TICKET)
    context.set_alpn_protocols([PROTOCOL.decode()])
    try:
        context.set_ciphers(settings.ciphers or INTERMEDIATE)
    except ssl.SSLError:
        raise ValueError(f"ciphers: OpenSSL knows none of {settings.ciphers!r}") from None
    _load_chain(context, certificate.cert, certificate.key)
    if settings.client_mode != "none" and settings.client_ca is not None:
        context.verify_mode = MODES[settings.client_mode]
        _load_trust(context, [settings.client_ca], "CA certificates")
        if settings.client_crl:
            _load_trust(context, settings.client_crl, "revocation list")
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return context


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """What a command believes and shows. ValueError: a file can't be used."""
    context = ssl.create_default_context()
    if ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_trust(context, [ca], "CA certificates")
    if cert is not None:
        _load_chain(context, cert, key)
    context.set_alpn_protocols([PROTOCOL.decode()])
    return context


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # else a terminal would be asked
    except OSError as error:
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "is it PEM?"
        raise ValueError(f"{cert} can't be used with {key or 'the key in it'}: {reason}") from None


def _load_trust(context: ssl.SSLContext, files: Iterable[Path], what: str) -> None:
    for file in files:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            reason = error.strerror if not isinstance(error, ssl.SSLError) else f"no {what} in PEM form"
            raise ValueError(f"{file} can't be used: {reason}") from None


def chain_of(connection: ssl.SSLObject | None) -> tuple[bytes, ...]:
    """What a client has proven, in DER form, its own certificate first; () where it showed none."""
    if connection is None:
        return ()
    verified = getattr(connection, "get_verified_chain", None)  # from Python 3.13 on
    if verified is not None:
        return tuple(verified() or ())
    alone = connection.getpeercert(binary_form=True)
    return (alone,) if alone else ()


def check_standard(settings: ServerTls) -> list[str]:
    """What of a port's settings `ssl` can't do; what is wrong with the files, others have said."""
    problems = []
    if settings.groups is not None:
        problems.append("groups can't be chosen at the admin port; leave the key out")
    if any(each.ocsp for each in settings.certificates):
        problems.append("the admin port staples no OCSP responses; leave ocsp out")
    for crl in settings.client_crl:
        try:
            is_pem = b"-----BEGIN X509 CRL-----" in crl.read_bytes()
        except OSError:
            continue
        if not is_pem:
            problems.append(f"{crl} must be in PEM form at the admin port")
    return problems
