"""Canonical heads, for tests. The connections use the C functions of forward.pxd."""

from _fastpath.networks import Networks

def rewrite_request(
    data: bytes,
    *,
    address: bytes = b"",
    scheme: bytes = b"",
    via: bytes = b"",
    extra: bytes = b"",
    trust: bool = False,
    upgrade: bool = False,
    capacity: int | None = None,
    proxies: Networks | None = None,
    new_id: bytes = b"",
) -> bytes | None:
    """What write_request makes of a request's head; None where it does not fit into `capacity`.

    `proxies`: the head came from `address`, which is a trusted proxy. `new_id`: 32 bytes.
    Raises ValueError where `data` is not a whole head without fault.
    """

def rewrite_response(data: bytes, *, method: bytes = b"GET", capacity: int | None = None) -> bytes | None:
    """What write_response makes of the head of a response to `method`."""

def rewrite_reply(
    data: bytes,
    *,
    method: bytes = b"GET",
    minor: int = 1,
    close: bool = False,
    keep_alive_10: bool = False,
    upgrade: bool = False,
    via: bytes = b"",
    capacity: int | None = None,
) -> bytes | None:
    """What write_reply makes of a canonical head of a response to `method`."""
