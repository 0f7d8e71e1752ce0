"""Does the time of a refusal tell whether there is such a user? `python -m bench.logins [ROUNDS]`.

A node with users of every kind is asked by those who guess: each kind of wrong credential, in random order,
each on a connection of its own, `ROUNDS` times. Printed are the medians, and in which interval the difference
from the first of its group lies in 95 of 100 resamplings. One around 0 tells nothing apart.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from broker.config.model import Secret
from broker.config.passwords import format_password_hash, hash_password
from broker.identity.proof import NONCE, Binding, Proof, key_of, prove
from broker.tunnel.credentials import format_proof
from broker.tunnel.handshake import Refusal, Registration, question_bytes, read_answer, registration_bytes

TOKEN = "broker_" + "t" * 43
RESAMPLINGS = 2000
PATIENCE_S = 30.0
addresses = (f"10.{a}.{b}.{c}" for a, b, c in itertools.product(range(256), range(256), range(1, 255)))

Attempt = Callable[[], float]


def ask(port: int, *parts: bytes) -> tuple[float, bytes]:
    """Seconds from the last part to its answer, and the answer; each part but the last is answered, too."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        answer = b""
        began = 0.0
        for part in parts:
            began = time.perf_counter()
            sock.sendall(part)
            answer = sock.recv(65536)
        return time.perf_counter() - began, answer


def bearer_login(port: int, token: str) -> Attempt:
    wanted = Registration("guess", os.urandom(16).hex(), 0, 65536, 10, (), token=token)

    def attempt() -> float:
        seconds, answer = ask(port, registration_bytes(wanted, "dmz")[0])
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        return seconds

    return attempt


def proven_login(port: int, token: str, known: bool) -> Attempt:
    """A proof of a token that nobody has; `known`: that claims to be of one that somebody has."""
    wanted = Registration("guess", os.urandom(16).hex(), 0, 65536, 10, (), token=token)

    def attempt() -> float:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
            sock.sendall(question_bytes("dmz"))
            binding = Binding(NONCE, nonce_of(sock.recv(65536)))
            request, _ = registration_bytes(wanted, "dmz", binding)
            if known:
                request = claim_key(request, binding)
            began = time.perf_counter()
            sock.sendall(request)
            answer = sock.recv(65536)
            seconds = time.perf_counter() - began
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        return seconds

    return attempt


def nonce_of(answer: bytes) -> bytes:
    try:
        read_answer(answer)
    except Refusal as refusal:
        return refusal.nonce or b""
    return b""


def claim_key(request: bytes, binding: Binding) -> bytes:
    head, _, _ = request.partition(b"Authorization: ")
    parameters = request.partition(b"Broker-Parameters: ")[2].partition(b"\r\n")[0]
    wrong = prove("x" * len(TOKEN), binding, parameters)
    key = key_of(hashlib.sha256(TOKEN.encode()).digest())
    proof = Proof(key, wrong.kind, wrong.sealed, wrong.parameters)
    return head + f"Authorization: {format_proof(proof)}\r\n\r\n".encode()


def call(port: int, scheme: str, credential: Callable[[], str]) -> Attempt:
    def attempt() -> float:
        lines = f"X-Forwarded-For: {next(addresses)}\r\nAuthorization: {scheme} {credential()}\r\n"
        seconds, answer = ask(port, f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        return seconds

    return attempt


def basic(name: str) -> Callable[[], str]:
    """Another wrong password each time: what was refused once is remembered."""
    return lambda: base64.b64encode(f"{name}:{os.urandom(9).hex()}".encode()).decode()


def guess(prefix: str) -> Callable[[], str]:
    return lambda: prefix + os.urandom(32).hex()[: len(TOKEN) - len(prefix)]


def groups(registration: int, external: int) -> dict[str, dict[str, Attempt]]:
    return {
        "login, token as it is": {
            "of nobody": bearer_login(registration, "broker_" + "u" * 43),
            "all but the last letter of a user's": bearer_login(registration, TOKEN[:-1] + "x"),
        },
        "login, proof of a token": {
            "of nobody": proven_login(registration, "broker_" + "u" * 43, known=False),
            "under the key of a user's": proven_login(registration, "broker_" + "u" * 43, known=True),
        },
        "client, token": {
            "of nobody": call(external, "Bearer", guess("broker_")),
            "most of a user's": call(external, "Bearer", guess(TOKEN[:40])),
        },
        "client, name and password": {
            "no such user": call(external, "Basic", basic("nobody")),
            "a user without a password": call(external, "Basic", basic("none")),
            "a user with one": call(external, "Basic", basic("one")),
            "a user with two": call(external, "Basic", basic("two")),
        },
    }


def start(directory: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    hashes = [format_password_hash(hash_password(Secret(f"password {each}"))) for each in range(3)]
    never = {"failed": 0, "broken": 0, "slow": 0}
    here = "127.0.0.1"
    config = {
        "registration": [{"listen": f"http://{here}:{ports[0]}", "strangers": {"penalties": never}}],
        "external": [
            {
                "listen": f"http://{here}:{ports[1]}",
                "auth": ["token", "basic"],
                "trusted_proxies": here,
            }
        ],
        "users": [
            {"name": "none", "tokens": ["sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()]},
            {"name": "one", "passwords": hashes[:1]},
            {"name": "two", "passwords": hashes[1:]},
        ],
    }
    path = directory / "node.yaml"
    path.write_text(json.dumps(config))
    words = [sys.executable, "-m", "broker", "serve", str(path), "--workers", "1"]
    process = subprocess.Popen(words, stderr=(directory / "log").open("w"))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex((here, ports[1])) == 0:
                return process
        time.sleep(0.05)
    raise SystemExit(f"the node does not start:\n{(directory / 'log').read_text()}")


def free_ports(count: int) -> list[int]:
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def interval(one: list[float], other: list[float]) -> tuple[float, float]:
    """Of the difference of the medians, 95 %."""
    found = sorted(
        statistics.median(random.choices(other, k=len(other)))
        - statistics.median(random.choices(one, k=len(one)))
        for _ in range(RESAMPLINGS)
    )
    return found[int(0.025 * RESAMPLINGS)], found[int(0.975 * RESAMPLINGS)]


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        ports = free_ports(2)
        process = start(Path(name), ports)
        try:
            for group, attempts in groups(*ports).items():
                count = rounds if "password" not in group else max(rounds // 20, 20)
                times: dict[str, list[float]] = {each: [] for each in attempts}
                order = [each for each in attempts for _ in range(count)]
                random.shuffle(order)
                for each in order:
                    times[each].append(attempts[each]())
                show(group, times)
        finally:
            process.terminate()
            process.wait()


def show(group: str, times: dict[str, list[float]]) -> None:
    print(f"{group}: median of {len(next(iter(times.values())))}, µs")
    first = next(iter(times.values()))
    for name, seconds in times.items():
        low, high = interval(first, seconds)
        more = "" if seconds is first else f"   {low * 1e6:+.1f} to {high * 1e6:+.1f}"
        print(f"  {name:40}{statistics.median(seconds) * 1e6:12.1f}{more}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
