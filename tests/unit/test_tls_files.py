"""Files of TLS: what expires when, what is weak, what is read."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.node.certificates import DailyLook, certificates_status
from broker.node.parts import Parts
from broker.ports.certificates import PortTls
from broker.tls.files import Expiry, read_crls, read_own, read_staple
from broker.tls.settings import Certificate, ServerTls
from tests.harness.certificates import Authority, Files

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def expiry(kind: str, life: float, left: float) -> Expiry:
    until = NOW + left * DAY
    return Expiry(kind, Path("file"), until - life * DAY, until)


@pytest.mark.parametrize(
    ("kind", "life", "left", "words"),
    [
        ("certificate", 365, 31, ""),
        ("certificate", 365, 29, "the certificate file expires on 2026-06-30 00:00 UTC"),
        ("certificate", 90, 30.5, ""),
        ("certificate", 6, 2.5, ""),
        ("certificate", 6, 1.5, "expires on"),
        ("certificate", 365, -1, "the certificate file has expired on 2026-05-31"),
        ("revocation list", 30, 2, ""),
        ("revocation list", 30, 0.5, "must be replaced by"),
        ("revocation list", 30, -1, "makes every certificate of its CA invalid"),
        ("OCSP response", 7, -1, "it is not stapled"),
        ("certificate", 365, 366, "the certificate file is not valid before 2026-06-02 00:00 UTC"),
    ],
)
def test_when_expiry_is_told(kind: str, life: float, left: float, words: str) -> None:
    said = expiry(kind, life, left).warning(NOW)
    assert words in said
    assert bool(said) == bool(words)
    assert expiry(kind, life, left).days_left(NOW) == pytest.approx(left)


def test_weak_keys(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for key, fine in (
        (rsa.generate_private_key(65537, 1024), False),
        (rsa.generate_private_key(65537, 2048), True),
        (ec.generate_private_key(ec.SECP192R1()), False),
        (ec.generate_private_key(ec.SECP384R1()), True),
    ):
        files = authority.issue("a.example", key=key)
        if fine:
            assert read_own(files.cert)
        else:
            with pytest.raises(ValueError, match="has a weak key"):
                read_own(files.cert)


def test_several_lists_in_one_file(tmp_path: Path) -> None:
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    both = tmp_path / "both.crl"
    both.write_bytes(one.crl().read_bytes() + b"some text\n" + two.crl().read_bytes())
    assert len(read_crls(both)) == 2
    for data in (b"", b"nothing", one.ca.read_bytes(), b"-----BEGIN X509 CRL-----\nAAAA\n"):
        both.write_bytes(data)
        with pytest.raises(ValueError, match="holds no certificate revocation list"):
            read_crls(both)


def test_a_staple_is_presented_as_long_as_it_is_current(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("a.example")
    leaf = read_own(files.cert)
    assert read_staple(authority.ocsp(files), leaf).current()
    assert read_staple(authority.ocsp(files, hours=-1), leaf).current() == b""


class Place:
    """As much of a port as is looked at."""

    def __init__(self, tls: PortTls) -> None:
        self.name = "web"
        self.tls = tls
        self.services = type("Services", (), {"expiries": []})()


def port_tls(files: Files) -> PortTls:
    certificate = Certificate(cert=files.cert, key=files.key)
    return PortTls("external port", "web", ServerTls(certificates=(certificate,)))


def test_the_daily_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What has been replaced is used, what has been spoilt is not, what expires soon is told."""
    authority = Authority(tmp_path)
    files, spoilt = authority.issue("a.example", days=90), authority.issue("b.example", days=90)
    ports = {"web": Place(port_tls(files)), "other": Place(port_tls(spoilt))}
    parts: Any = type("P", (), {"external": ports, "registration": {}, "uplinks": {}, "agent_services": {}})()
    before = certificates_status(cast(Parts, parts))
    assert [each["days_left"] > 80 for each in before] == [True, True]
    renewed = authority.issue("a.example", days=10)
    files.cert.write_bytes(renewed.cert.read_bytes())
    files.key.write_bytes(renewed.key.read_bytes())
    spoilt.cert.write_bytes(b"spoilt")

    async def look() -> None:
        daily = DailyLook(cast(Parts, parts), interval_s=0.001)
        while "goes on with the certificates that it has" not in caplog.text:
            await asyncio.sleep(0.001)
        daily.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(look())
    assert f"external port web: the certificate {files.cert} expires on" in caplog.text
    assert [each["days_left"] > 80 for each in certificates_status(cast(Parts, parts))] == [False, True]
