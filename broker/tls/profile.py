"""What all contexts have in common: versions, ciphers and groups.

Defaults are Mozilla's intermediate profile (https://wiki.mozilla.org/Security/Server_Side_TLS): TLS 1.2 with
forward secrecy and AEAD, and TLS 1.3; its groups, and before them the hybrid one where the library has it.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL, _util

INTERMEDIATE = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
GROUPS = ("X25519MLKEM768", "X25519", "prime256v1", "secp384r1")
VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
OP_NO_RENEGOTIATION = 1 << 30  # SSL_OP_NO_RENEGOTIATION, which pyOpenSSL has no name for
PROTOCOL = b"http/1.1"

# pyOpenSSL's set_tmp_ecdh takes one curve. The library's own function takes a list; cryptography has bound it
# under its older name. None: not reachable, and then the library's groups hold.
_set_groups: Any = getattr(_util.lib, "SSL_CTX_set1_curves_list", None)
NO_COMMON_NAME = 0x20  # X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
NO_PARTIAL_WILDCARDS = 0x4  # X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
can_choose_groups = _set_groups is not None and hasattr(SSL.Context(SSL.TLS_METHOD), "_context")


def set_basics(context: SSL.Context) -> SSL.Context:
    """What all contexts have; returns it."""
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def set_ciphers(context: SSL.Context, ciphers: str | None) -> None:
    """Of TLS 1.2. Raises ValueError."""
    try:
        context.set_cipher_list((ciphers or INTERMEDIATE).encode())
    except (SSL.Error, UnicodeEncodeError):
        raise ValueError(f"ciphers: OpenSSL knows none of {ciphers!r}") from None


def set_groups(context: SSL.Context, groups: str | None) -> None:
    """Of the key exchange, the preferred first. Raises ValueError."""
    if groups is not None:
        if not can_choose_groups:
            raise ValueError("groups can't be chosen with this version of cryptography; leave the key out")
        if not _accepts(context, groups):
            raise ValueError(f"groups: OpenSSL does not know all of {groups!r}")
    elif can_choose_groups:
        # A group that this version of OpenSSL lacks makes it refuse the whole list.
        _accepts(context, ":".join(GROUPS)) or _accepts(context, ":".join(GROUPS[1:]))


def expect_name(context: Any, name: str, address: bytes) -> None:
    """Let the handshake fail where the peer's certificate is for another name (or packed address).

    So the peer is told, by an alert. Where these functions can't be reached it is not: whoever needs
    the name to be right looks at it after the handshake.
    """
    lib = _util.lib
    try:
        param = lib.SSL_CTX_get0_param(context._context)
        lib.X509_VERIFY_PARAM_set_hostflags(param, NO_COMMON_NAME | NO_PARTIAL_WILDCARDS)
        if address:
            lib.X509_VERIFY_PARAM_set1_ip(param, address, len(address))
        else:
            text = name.rstrip(".").encode("idna")
            lib.X509_VERIFY_PARAM_set1_host(param, text, len(text))
    except (AttributeError, UnicodeError):
        return


def _accepts(context: Any, groups: str) -> bool:
    if not groups.isascii() or _set_groups(context._context, groups.encode()) != 1:
        _util.lib.ERR_clear_error()
        return False
    return True
