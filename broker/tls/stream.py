"""A TLS connection over memory buffers, as Python code that logs in uses it, before the core takes it over.

Sans-IO: what arrived goes in with `feed`, what has to be sent comes out of `pending`.
"""

from __future__ import annotations

from OpenSSL import SSL

from broker.tls.trust import verdict

READ_SIZE = 65536


class TlsFailed(Exception):
    """The handshake or the connection failed; the text is one clause for people."""


class TlsStream:
    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self.established = False

    def handshake(self) -> bool:
        """One step; True once it is done. Send `pending` after it, even when it raises TlsFailed."""
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise TlsFailed(verdict(self.connection) or explain(error)) from None
        self.established = True
        return True

    def feed(self, data: bytes) -> None:
        self.connection.bio_write(data)

    def pending(self) -> bytes:
        """Ciphertext for the peer."""
        parts = []
        while True:
            try:
                parts.append(self.connection.bio_read(READ_SIZE))
            except SSL.WantReadError:
                return b"".join(parts)

    def read(self) -> bytes | None:
        """Plaintext that has arrived: None where there is none yet, b"" where the peer has ended."""
        parts = []
        while True:
            try:
                parts.append(self.connection.recv(READ_SIZE))
            except SSL.WantReadError:
                return b"".join(parts) or None
            except SSL.ZeroReturnError:
                return b"".join(parts)
            except SSL.Error as error:
                if parts:
                    return b"".join(parts)
                raise TlsFailed(explain(error)) from None

    def write(self, data: bytes) -> bytes:
        """The ciphertext of it."""
        self.connection.sendall(data)
        return self.pending()


# What OpenSSL says, or a part of it; what the other side's alerts say of us (RFC 8446 6.2).
WORDS = {
    "certificate verify failed": "the certificate is not trusted: no known CA signed it, or it has expired",
    "wrong version number": "the other side does not speak TLS",
    "packet length too long": "the other side does not speak TLS",
    "alert unknown ca": "the other side does not know the CA of our certificate",
    "alert certificate required": "the other side wants a certificate, and none is configured",
    "alert certificate expired": "the other side says that our certificate has expired",
    "alert certificate revoked": "the other side says that our certificate has been revoked",
    "alert certificate unknown": "the other side does not accept our certificate",
    "alert bad certificate": "the other side does not accept our certificate: it may be for another name,"
    " not valid yet, or its key too weak",
    "alert unsupported certificate": "the other side says that our certificate is not for this use",
    "peer did not return a certificate": "the other side showed no certificate",
    "alert protocol version": "no TLS version is common to both sides",
    "alert access denied": "the other side refuses this address: too many logins have failed,"
    " or it is not allowed there",
    "unsupported protocol": "no TLS version is common to both sides",
    "no shared cipher": "no cipher is common to both sides",
    "no suitable key share": "no group for the key exchange is common to both sides",
    "no shared group": "no group for the key exchange is common to both sides",
    "alert handshake failure": "the other side found no common cipher or group, or wants a certificate",
    "unexpected eof": "the connection ended",
}


def explain(error: SSL.Error) -> str:
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(each[-1]) for each in details if each]
    for reason in reasons:
        words = in_words(reason)
        if words != reason:
            return words
    return reasons[-1] if reasons else "the connection ended"


def in_words(reason: str) -> str:
    """OpenSSL's reason in words for people, where there are better ones."""
    return next((words for known, words in WORDS.items() if known in reason), reason)
