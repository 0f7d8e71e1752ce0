"""The registration handshake, both sides, sans-IO: bytes in, a decision or a refusal out.

    agent                                             DMZ node
    GET /tunnel HTTP/1.1, Upgrade: broker-tunnel  ->
                                                  <-  101, and frames follow; or an ordinary refusal

Neither side trusts the other. All that arrives is measured before it is decoded, decoded under
limits, checked value by value and turned into a dataclass; unknown keys are ignored, so that a
newer and an older node work together. docs/protocol.md is the specification.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from _fastpath import http1
from broker.config.model import Match
from broker.identity.proof import Binding, Proof, prove
from broker.tunnel.credentials import (
    SCHEME,
    Authorization,
    format_challenge,
    format_proof,
    parse_authorization,
    parse_challenge,
)
from broker.tunnel.messages import integer, pack, pack_services, parse_services, printable, text, unpack_map

PROTOCOL = "broker-tunnel"
VERSION = "1"
TARGET = "/tunnel"

HEAD_LIMIT = 65536  # bytes of a registration's head, and of its answer's
HEADER_LIMIT = 64
BODY_LIMIT = 16384  # bytes of a refusal's body that the agent looks at
MAX_PARAMETERS = 49152  # characters of Broker-Parameters, before decoding
MAX_WINDOW = 2147483647
MAX_STREAMS = 65535
MAX_INDEX = 1023
SILENCE_MS = (1000, 600_000)  # how long silence may be allowed to last before it means death
MAX_RETRY_MS = 300_000

_AGENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_INSTANCE = re.compile(r"[0-9a-f]{32}")
_CODE = re.compile(r"[a-z][a-z-]{0,39}")


class Refusal(Exception):
    """The handshake is over: an HTTP status, a code, and one sentence that says why.

    Raised on the DMZ node's side for what it answers, on the agent's for what it was answered (or, with
    status 0, for an answer that could not be understood).
    """

    def __init__(
        self, status: int, code: str, sentence: str, retry_after: int = 0, nonce: bytes | None = None
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.sentence = sentence
        self.retry_after = retry_after  # seconds; 0: not said
        self.nonce = nonce  # of a challenge: the connection stays, for a registration with a proof


@dataclass(frozen=True, slots=True)
class Registration:
    """What an agent asks for."""

    agent: str  # its name, for people and for groups of replicas
    instance: str  # 128 random bits in hex, one per agent process
    index: int  # which of this process's tunnels to this node
    window: int  # initial stream window that the agent grants
    streams: int  # streams that the DMZ node may open
    services: tuple[Match, ...]
    token: str | None = field(default=None, repr=False)
    proof: Proof | None = None  # of a token, in its place
    look: bool = False  # only what would be granted is asked for: no tunnel


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What the DMZ node grants."""

    node: str
    window: int  # initial stream window that the DMZ node grants
    streams: int  # streams that the agent may open
    silence_ms: int  # so long without a byte means dead
    retry_ms: int | None = None  # wait about so long before coming back after a loss


# --- parameters: msgpack in base64url -----------------------------------------------------------


def _decode_parameters(value: bytes) -> dict[str, Any]:
    if len(value) > MAX_PARAMETERS:
        raise ValueError(f"more than {MAX_PARAMETERS} characters")
    if not re.fullmatch(rb"[A-Za-z0-9_-]*", value):
        raise ValueError("not base64url without padding")
    try:
        packed = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
    except binascii.Error:
        raise ValueError("not base64url without padding") from None
    return unpack_map(packed)


def _encode_parameters(parameters: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(pack(parameters)).rstrip(b"=").decode("ascii")


def is_agent_name(name: str) -> bool:
    return _AGENT.fullmatch(name) is not None


# --- header fields ----------------------------------------------------------------------------


def _fields(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _single(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The value of a field that may occur once. ValueError where it occurs more often."""
    values = _fields(headers, name)
    if len(values) > 1:
        raise ValueError(f"{name.decode('ascii')} is given more than once")
    return values[0] if values else None


def _tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> set[bytes]:
    return {
        token.strip().lower()
        for value in _fields(headers, name)
        for token in value.split(b",")
        if token.strip()
    }


def _asks_for_tunnel(headers: list[tuple[bytes, bytes]]) -> bool:
    return b"upgrade" in _tokens(headers, b"connection") and PROTOCOL.encode() in _tokens(headers, b"upgrade")


# --- DMZ node: read a registration, answer it -------------------------------------------------


def read_registration(data: bytes, head_limit: int = HEAD_LIMIT) -> tuple[Registration | None, int] | None:
    """The registration at the start of `data` and the size of its head; None: more bytes needed.

    In place of a registration, None: the agent asks for a nonce first. Raises Refusal. What follows the head
    is the caller's: the first frames.
    """
    try:
        request = http1.parse_request(data, head_limit, HEADER_LIMIT)
    except http1.HeadError as error:
        code = (
            "bad-request"
            if error.status == 400
            else "head-too-large"
            if error.status in (414, 431)
            else "unsupported"
        )
        raise Refusal(error.status, code, f"The request could not be read: {error.reason}.") from None
    if request is None:
        return None
    _check_request_line(request)
    try:
        authorization = _authorization(request.headers)
        if authorization.asks:
            return None, request.size
        parameters = _registration_parameters(request.headers)
        return _registration(parameters, authorization), request.size
    except ValueError as error:
        raise Refusal(400, "bad-request", f"The registration is malformed: {error}.") from None


def _check_request_line(request: http1.ParsedHead) -> None:
    headers = request.headers
    if request.method != b"GET":
        raise Refusal(
            405, "bad-request", "This is a registration port: it takes GET with an upgrade, nothing else."
        )
    if request.minor != 1 or not _asks_for_tunnel(headers):
        raise Refusal(
            426,
            "unsupported",
            "This is the registration port of a broker's DMZ node: agents connect here, with"
            " `broker connect URL`. Clients use an external port.",
        )
    if request.target != TARGET.encode():
        raise Refusal(404, "no-service", f"Agents register at {TARGET}.")
    if _fields(headers, b"content-length") or _fields(headers, b"transfer-encoding"):
        raise Refusal(400, "bad-request", "A registration has no body.")
    versions = _fields(headers, b"broker-version")
    if versions != [VERSION.encode()]:
        raise Refusal(426, "unsupported", f"This node speaks version {VERSION} of the tunnel protocol only.")


def _registration_parameters(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    value = _single(headers, b"broker-parameters")
    if value is None:
        raise ValueError("Broker-Parameters is missing")
    try:
        return _decode_parameters(value)
    except ValueError as error:
        raise ValueError(f"Broker-Parameters cannot be decoded ({printable(str(error), 80)})") from None


def _authorization(headers: list[tuple[bytes, bytes]]) -> Authorization:
    value = _single(headers, b"authorization")
    parameters = _single(headers, b"broker-parameters") or b""
    try:
        return parse_authorization(value, parameters)
    except ValueError as error:
        raise Refusal(401, "unauthenticated", f"The credentials are {error}.") from None


def _registration(parameters: Mapping[str, Any], shown: Authorization) -> Registration:
    return Registration(
        agent=text(parameters, "name", _AGENT, "1 to 64 letters, digits, dots, dashes and underscores"),
        instance=text(parameters, "instance", _INSTANCE, "32 hexadecimal digits"),
        index=integer(parameters, "index", 0, MAX_INDEX),
        window=integer(parameters, "window", 1, MAX_WINDOW),
        streams=integer(parameters, "streams", 0, MAX_STREAMS),
        services=parse_services(parameters.get("services", [])),
        token=shown.token,
        proof=shown.proof,
        look=parameters.get("look") is True,
    )


def verdict_bytes(node: str, user: str, refused: Iterable[tuple[Match, str, str]], now: float) -> bytes:
    """The answer to a registration that only looks: who it was, and what would be refused."""
    lost = [{"service": str(service), "code": code, "reason": reason} for service, code, reason in refused]
    body = json.dumps({"node": node, "user": user, "time": now, "refused": lost}).encode() + b"\n"
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\n" + head.encode() + body


def acceptance_bytes(acceptance: Acceptance) -> bytes:
    parameters: dict[str, Any] = {
        "node": acceptance.node,
        "window": acceptance.window,
        "streams": acceptance.streams,
        "silence": acceptance.silence_ms,
    }
    if acceptance.retry_ms is not None:
        parameters["retry"] = acceptance.retry_ms
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        f"Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\nBroker-Version: {VERSION}\r\n"
        f"Broker-Parameters: {_encode_parameters(parameters)}\r\n\r\n"
    ).encode("ascii")


def refusal_bytes(refusal: Refusal) -> bytes:
    problem = {"type": "about:blank", "title": _title(refusal.status), "status": refusal.status}
    body = json.dumps(problem | {"detail": refusal.sentence, "code": refusal.code}).encode("utf-8") + b"\n"
    lines = [
        f"HTTP/1.1 {refusal.status} {_title(refusal.status)}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"Broker-Error: {refusal.code}",
        f"Broker-Version: {VERSION}",
    ]
    if refusal.status == 426:
        lines += [f"Upgrade: {PROTOCOL}", "Connection: Upgrade, close"]
    elif refusal.nonce is None:
        lines.append("Connection: close")
    if refusal.nonce is not None:
        lines.append(f"WWW-Authenticate: {format_challenge(refusal.nonce)}")
    elif refusal.status == 401:
        lines.append('WWW-Authenticate: Bearer realm="broker"')
    if refusal.status == 405:
        lines.append("Allow: GET")
    if refusal.retry_after:
        lines.append(f"Retry-After: {refusal.retry_after}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


# --- agent: write a registration, read the answer ---------------------------------------------


def question_bytes(host: str) -> bytes:
    """Asks for a nonce, where there is no TLS to bind the proof of a token to."""
    return "\r\n".join([*_first_lines(host), f"Authorization: {SCHEME}", "", ""]).encode("ascii")


def registration_bytes(
    registration: Registration, host: str, binding: Binding | None = None
) -> tuple[bytes, bool]:
    """The request, and whether the services fitted into it; else they must be announced after.

    With a binding the token is proven for that connection; without, it is sent.
    """
    parameters: dict[str, Any] = {
        "name": registration.agent,
        "instance": registration.instance,
        "index": registration.index,
        "window": registration.window,
        "streams": registration.streams,
        "services": pack_services(registration.services),
    }
    if registration.look:
        parameters["look"] = True
    encoded = _encode_parameters(parameters)
    complete = len(encoded) <= MAX_PARAMETERS
    if not complete:
        encoded = _encode_parameters(parameters | {"services": []})
    lines = [*_first_lines(host), f"Broker-Parameters: {encoded}"]
    if registration.token is not None and binding is not None:
        proof = prove(registration.token, binding, encoded.encode("ascii"))
        lines.append(f"Authorization: {format_proof(proof)}")
    elif registration.token is not None:
        lines.append(f"Authorization: Bearer {registration.token}")
    return "\r\n".join([*lines, "", ""]).encode("ascii"), complete


def _first_lines(host: str) -> list[str]:
    return [
        f"GET {TARGET} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        f"Upgrade: {PROTOCOL}",
        f"Broker-Version: {VERSION}",
    ]


def read_answer(data: bytes, *, ended: bool = False) -> tuple[Acceptance, int] | None:
    """What the DMZ node granted and the size of its answer's head; None: more bytes needed.

    Raises Refusal: with the node's status, or with status 0 where the answer makes no sense.
    `ended`: the connection has ended, no more bytes will come.
    """
    try:
        response = http1.parse_response(data, HEAD_LIMIT, HEADER_LIMIT)
    except http1.HeadError as error:
        raise Refusal(
            0, "bad-answer", f"The peer does not answer like a registration port ({error.reason})."
        ) from None
    if response is None:
        if ended:
            raise Refusal(0, "bad-answer", "The peer closed the connection before it answered.")
        return None
    if response.status == 101:
        return _acceptance(response), response.size
    body = _refusal_body(response, data, ended)
    if body is None:
        return None
    raise _refusal(response, body)


def read_verdict(data: bytes, *, ended: bool = False) -> dict[str, Any] | None:
    """The answer to a registration that only looks; None: more bytes needed. Raises Refusal as above."""
    try:
        response = http1.parse_response(data, HEAD_LIMIT, HEADER_LIMIT)
    except http1.HeadError as error:
        raise Refusal(
            0, "bad-answer", f"The peer does not answer like a registration port ({error.reason})."
        ) from None
    if response is None or response.status != 200:
        if read_answer(data, ended=ended) is not None:
            raise Refusal(0, "bad-answer", "The peer opens a tunnel where it was only asked.")
        return None
    body = _refusal_body(response, data, ended)
    if body is None:
        return None
    try:
        verdict = json.loads(body)
    except (ValueError, RecursionError):
        verdict = None
    if not isinstance(verdict, dict) or not isinstance(verdict.get("refused"), list):
        raise Refusal(0, "bad-answer", "The peer answered with status 200, not like a registration port.")
    return verdict


def _acceptance(response: http1.ParsedHead) -> Acceptance:
    headers = response.headers
    try:
        if not _asks_for_tunnel(headers):
            raise ValueError("it switches to another protocol")
        if _fields(headers, b"broker-version") != [VERSION.encode()]:
            raise ValueError("it speaks another version of the tunnel protocol")
        parameters = _registration_parameters(headers)
        return Acceptance(
            node=text(parameters, "node", _AGENT, "a name"),
            window=integer(parameters, "window", 1, MAX_WINDOW),
            streams=integer(parameters, "streams", 0, MAX_STREAMS),
            silence_ms=integer(parameters, "silence", *SILENCE_MS),
            retry_ms=integer(parameters, "retry", 0, MAX_RETRY_MS) if "retry" in parameters else None,
        )
    except ValueError as error:
        raise Refusal(0, "bad-answer", f"The peer's acceptance makes no sense: {error}.") from None


def _refusal_body(response: http1.ParsedHead, data: bytes, ended: bool) -> bytes | None:
    """The body as far as it matters, or None while it is still on its way."""
    lengths = _fields(response.headers, b"content-length")
    arrived = data[response.size : response.size + BODY_LIMIT]
    if ended or not lengths or not lengths[0].isdigit() or len(lengths[0]) > 10:
        return arrived
    return arrived if len(arrived) >= min(int(lengths[0]), BODY_LIMIT) else None


def _refusal(response: http1.ParsedHead, body: bytes) -> Refusal:
    codes = _fields(response.headers, b"broker-error")
    code = codes[0].decode("latin-1") if codes else ""
    if not _CODE.fullmatch(code):
        sentence = f"The peer answered with status {response.status}, not like a registration port."
        return Refusal(response.status, "bad-answer", sentence, _retry_after(response.headers))
    nonce = parse_challenge(_fields(response.headers, b"www-authenticate"))
    sentence = _detail(body) or _title(response.status) + "."
    return Refusal(response.status, code, sentence, _retry_after(response.headers), nonce)


def _detail(body: bytes) -> str:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return printable(detail) if isinstance(detail, str) else ""


def _retry_after(headers: list[tuple[bytes, bytes]]) -> int:
    values = _fields(headers, b"retry-after")
    if len(values) == 1 and re.fullmatch(rb"[0-9]{1,5}", values[0]):
        return min(int(values[0]), MAX_RETRY_MS // 1000)
    return 0
