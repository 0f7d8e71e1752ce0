"""Clients of a soak: each a thread that asks until it is told to end, and counts what went wrong."""

import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as dial

from tests.faults.soak.service import BULK
from tests.harness.client import RawClient, connect
from tests.harness.message import Closed, Response
from tests.harness.nodes import DmzNode
from tests.harness.origin import pattern

PATIENCE_S = 90.0
AGAIN_S = 0.1
BODY = pattern(3000, seed=1)
BODY_HASH = hashlib.sha256(BODY).hexdigest()
EMPTY_HASH = hashlib.sha256(b"").hexdigest()


class Outages:
    """When processes that clients were connected to were killed or restarted: what was lost then was lost to
    everybody, and a client asks again, as every HTTP client does after a lost connection."""

    def __init__(self) -> None:
        self._spans: list[list[float]] = []

    def begin(self) -> None:
        self._spans.append([time.monotonic(), float("inf")])

    def end(self) -> None:
        self._spans[-1][1] = time.monotonic()

    def since(self, began: float) -> bool:
        """Whether there was one, or is, after `began`."""
        return any(end >= began for _, end in self._spans)


class Clients:
    def __init__(self, dmz: DmzNode, outages: Outages) -> None:
        self.dmz = dmz
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._outages = outages
        self._stop = threading.Event()
        self._numbers = itertools.count()
        kinds: list[Callable[[], None]] = [self._small] * 4 + [self._posts] * 2
        kinds += [self._bulk, self._upload, self._slow, self._slow, self._tcp, self._websocket]
        self._threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 10)
            assert not thread.is_alive(), "a client hangs"

    def _repeat(self, kind: Callable[[], None]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                kind()
            except (OSError, Closed) as error:
                # Where a connection is lost for no reason that its client could see, something is wrong.
                if self._outages.since(began):
                    self.counts["again"] += 1
                    time.sleep(AGAIN_S)
                else:
                    self._bad("failed", f"{kind.__name__}: {error!r}")

    def _bad(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.problems.append(f"{time.strftime('%H:%M:%S')} {what}: {text}")

    def _client(self) -> RawClient:
        return RawClient(self.dmz.external, timeout=PATIENCE_S)

    def _check(self, what: str, answer: Response, expected: bytes) -> None:
        if answer.status != 200:
            self._bad("failed", f"{what}: {answer.status} {answer.body[:150]!r}")
        elif answer.body != expected:
            self._bad("shortened", f"{what}: {answer.body[:150]!r}")

    def _small(self) -> None:
        """A few GETs and PUTs on one connection."""
        with self._client() as client:
            for _ in range(20):
                number = next(self._numbers)
                method, body, digest = ("PUT", BODY, BODY_HASH) if number % 2 else ("GET", None, EMPTY_HASH)
                answer = client.request(method, f"/n/{number}", body=body)
                self._check(f"{method} /n/{number}", answer, f"/n/{number} {digest}".encode())
                self.counts["small"] += 1
                if not answer.keeps_open:
                    return

    def _posts(self) -> None:
        number = next(self._numbers)
        with self._client() as client:
            answer = client.request("POST", f"/n/{number}", body=BODY)
        if answer.headers.get("Broker-Delivery") == "maybe-sent":
            self.counts["unsure"] += 1
        else:
            self._check(f"POST /n/{number}", answer, f"/n/{number} {BODY_HASH}".encode())
            self.counts["posts"] += 1

    def _bulk(self) -> None:
        with self._client() as client:
            client.send_request("GET", "/bulk")
            head = client.read_head()
            if head.status != 200:
                self._bad("failed", f"/bulk: {head.status}")
                return
            try:
                body = client.reader.exactly(len(BULK), "a bulk body")
            except (OSError, Closed):
                self.counts["cut"] += 1
                return
        if body != BULK:
            self._bad("shortened", "/bulk: other bytes")
        self.counts["bulk"] += 1

    def _upload(self) -> None:
        """A PUT that is too large to be kept, and so to be sent again.

        It succeeds, or is told that it may have been sent, or that nobody has got it and when to ask again.
        """
        number = next(self._numbers)
        with self._client() as client:
            try:
                answer = client.request("PUT", f"/n/{number}", body=BULK)
            except (OSError, Closed):
                self.counts["cut"] += 1  # answered while it was still sending
                return
        if answer.status == 200:
            self.counts["uploads"] += 1
        elif answer.headers.get("Broker-Error") == "tunnel-lost" or told_to_ask_again(answer):
            self.counts["unsure"] += 1
        else:
            self._bad("failed", f"upload: {answer.status} {answer.body[:150]!r}")

    def _slow(self) -> None:
        with self._client() as client:
            self._check("/slow", client.request("GET", "/slow"), b"/slow")
        self.counts["slow"] += 1

    def _tcp(self) -> None:
        with connect(self.dmz.external_at(1), PATIENCE_S) as sock:
            try:
                for _ in range(50):
                    sock.sendall(BODY)
                    got = b""
                    while len(got) < len(BODY):
                        part = sock.recv(65536)
                        if not part:
                            self.counts["ended"] += 1
                            return
                        got += part
                    if got != BODY:
                        self._bad("shortened", "tcp: other bytes")
                    self.counts["tcp"] += 1
                    time.sleep(0.05)
            except OSError:
                self.counts["ended"] += 1

    def _websocket(self) -> None:
        host, port = self.dmz.external
        try:
            with dial(
                f"ws://{host}:{port}/ws", proxy=None, open_timeout=PATIENCE_S, ping_interval=None
            ) as ws:
                for number in range(50):
                    ws.send(str(number))
                    if ws.recv(timeout=PATIENCE_S) != str(number):
                        self._bad("shortened", "WebSocket: another message")
                    self.counts["websocket"] += 1
                    time.sleep(0.05)
        except (OSError, WebSocketException, TimeoutError, EOFError):
            self.counts["ended"] += 1
            time.sleep(0.2)


def told_to_ask_again(answer: Response) -> bool:
    """Nobody has got it, and it says so."""
    told = answer.headers
    return (answer.status, told.get("Broker-Error"), told.get("Broker-Delivery")) == (
        503,
        "no-agent",
        "never-sent",
    ) and "Retry-After" in told
