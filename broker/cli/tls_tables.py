"""What `broker tls show` and `check` found, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from broker.tls.describe import until

Entry = dict[str, Any]


def show_lines(entries: Iterable[Entry]) -> Iterator[str]:
    for entry in entries:
        yield f"{' '.join(filter(None, [entry['kind'], entry['name']]))} {entry['url']}"
        for certificate in entry["certificates"]:
            yield from certificate_lines(certificate)
        if entry["kind"] == "connect":
            yield f"  believes       {entry['ca'] if entry['verify'] else 'everybody'}"
            continue
        yield f"  versions       from {entry['min_version']}"
        yield f"  groups         {entry['groups']}"
        yield f"  tickets        {'yes' if entry['tickets'] else 'no'}"
        yield from client_lines(entry["client"])


def client_lines(client: Entry) -> Iterator[str]:
    yield f"  client certificates: {client['mode']}"
    for ca in client.get("ca", []):
        yield f"    of {ca['subject']}, {until(ca)}"
    for crl in client.get("crl", []):
        yield f"    revocation list {crl['file']}, next {crl['next_update'] or 'not said'}"


def certificate_lines(certificate: Entry) -> Iterator[str]:
    if "file" in certificate:
        yield f"  certificate    {certificate['file']}"
    names = ", ".join(certificate["names"]) or "none"
    yield f"    subject      {certificate['subject'] or 'empty'}"
    yield f"    names        {names}"
    yield f"    issuer       {certificate['issuer']}"
    yield f"    valid        {until(certificate)}"
    yield f"    key          {certificate['key']}"
    yield f"    fingerprint  {certificate['fingerprint']}"
    for each in certificate.get("chain", []):
        yield f"    with         {each['subject']}, {until(each)}"
    if "ocsp" in certificate:
        staple = certificate["ocsp"]
        yield f"    stapled      {staple['file']}, until {staple['next_update'] or 'not said'}"


def check_lines(address: str, shown: Entry, problems: list[str]) -> Iterator[str]:
    yield f"{address} ({shown['address']})" if "address" in shown else address
    if "version" in shown:
        taken = ", ".join(shown.get("versions", [])) or "not known"
        yield f"  version        {shown['version']}; taken: {taken}"
        yield f"  cipher         {shown['cipher']}"
        yield f"  group          {shown['group'] or 'not known'}"
        yield f"  ALPN           {shown['alpn'] or 'none'}"
    for place, certificate in enumerate(shown.get("chain", [])):
        yield "  certificate" if place == 0 else "  issued by"
        yield from certificate_lines(certificate)
    if "ocsp" in shown:
        staple = shown["ocsp"]
        yield f"  stapled OCSP   {staple['status'] if staple else 'none'}"
    if "client_certificate" in shown:
        yield f"  client certificate: {shown['client_certificate']}"
    yield ""
    if not problems:
        yield "nothing is wrong"
    for problem in problems:
        yield f"wrong: {problem}"
