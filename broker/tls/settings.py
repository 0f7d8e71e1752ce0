"""What is to be known to make a TLS context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """PEM files: the certificate, with its chain behind it, and its private key."""

    cert: Path
    key: Path
    ocsp: Path | None = None
    """An OCSP response in DER form, which a port staples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a port presents, and asks of clients."""

    certificates: tuple[Certificate, ...]
    """The first is for names that none has, and for clients that name none."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    ciphers: str | None = None
    """Of TLS 1.2, in OpenSSL's words; None: Mozilla's intermediate ones."""
    groups: str | None = None
    """Of the key exchange, in OpenSSL's words; None: `profile.GROUPS`."""
    tickets: bool = True
    """Whether sessions may be resumed; where clients are asked for certificates they never are."""
    client_mode: Literal["none", "request", "require"] = "none"
    client_ca: Path | None = None
    client_crl: tuple[Path, ...] = ()

    @property
    def resumes(self) -> bool:
        """A resumed session brings the client's certificate without the chain, by which rules for a CA go."""
        return self.tickets and self.client_mode == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What this node believes and shows where it dials."""

    ca: Path | None = None
    """None: the CAs of the system."""
    crl: tuple[Path, ...] = ()
    certificate: Certificate | None = None
    server_name: str = ""
    """Asked for and verified instead of the host that is dialled; "": that host."""
    verify: bool = True
    """False: whoever answers is believed."""
