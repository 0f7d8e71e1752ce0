"""HTTP proxies on the way to a registration port: CONNECT (RFC 9110 9.3.6), sans-IO.

The proxy resolves the name and opens the connection; what follows its answer is between agent and DMZ node.
"""

from __future__ import annotations

import base64

from _fastpath import http1
from broker.config.model import Proxy

HEAD_LIMIT = 16384
HEADER_LIMIT = 64


class ProxyRefused(Exception):
    """The text is one clause for people, without anything that the proxy said word for word."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused  # by the proxy itself: it will not be otherwise soon


def connect_bytes(proxy: Proxy, authority: str) -> bytes:
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.credentials is not None:
        basic = base64.b64encode(proxy.credentials.reveal().encode("utf-8")).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {basic}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def read_answer(data: bytes, proxy: Proxy, authority: str, *, ended: bool = False) -> bool:
    """Whether the proxy has connected; False: more bytes are needed. Raises ProxyRefused."""
    try:
        response = http1.parse_response(data, HEAD_LIMIT, HEADER_LIMIT)
    except http1.HeadError as error:
        raise ProxyRefused(f"{proxy.name} does not answer like an HTTP proxy ({error.reason})") from None
    if response is None:
        if ended:
            raise ProxyRefused(f"{proxy.name} ended the connection without an answer")
        return False
    if not 200 <= response.status < 300:
        raise ProxyRefused(reason(response, proxy, authority), refused=response.status < 500)
    if len(data) > response.size:
        raise ProxyRefused(f"{proxy.name} sent bytes before the DMZ node was asked for any")
    return True


def reason(response: http1.ParsedHead, proxy: Proxy, authority: str) -> str:
    status = response.status
    if status in (401, 407):  # 401: tinyproxy's answer to a wrong password
        return wants_credentials(response, proxy)
    if status in (403, 405):
        return f"{proxy.name} forbids connections to {authority} (status {status})"
    if status in (500, 502, 503, 504):
        return f"{proxy.name} can't reach {authority} (status {status})"
    return f"{proxy.name} answered CONNECT {authority} with status {status}"


def wants_credentials(response: http1.ParsedHead, proxy: Proxy) -> str:
    offers = [
        value.decode("latin-1") for name, value in response.headers if name.lower() == b"proxy-authenticate"
    ]
    schemes = {offer.partition(" ")[0].lower() for offer in offers}
    if schemes and "basic" not in schemes:
        names = ", ".join(sorted(scheme for scheme in schemes if scheme.isalnum()))
        return f"{proxy.name} wants a login by {names}, but only Basic is understood here"
    if proxy.credentials is None:
        return f"{proxy.name} wants a user name and a password: set proxy.credentials_file"
    return f"{proxy.name} does not accept the user name and password"
