"""Who may do what at the admin port.

Two kinds of visitors are kept out.

Strangers: where the configuration asks for credentials (`admin.auth`), each request proves who sends it, by
token or client certificate, and the user's right `may.admin` says how far it goes.

Other sites' pages in the browser of somebody who may: a browser sends no token by itself, but it comes from
the right address, and shows the right certificate. So a foreign Origin is refused, and what the browser calls
cross-site; a POST from any browser must have a JSON content type or a Broker-Admin header, which no other
site's page can send; and the Host must be ours, unless a token proves that the sender means this port (a
foreign name that was made to point here is another site's page, too).
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from dataclasses import dataclass

from aiohttp import web

from broker.config import model
from broker.identity.users import Users
from broker.observe.limited import Limiter
from broker.services.compiled import admission_of
from broker.tls.standard import StandardTls, chain_of

log = logging.getLogger("broker.admin")

# Probes send all kinds of Host and no credentials, and these two tell nothing.
OPEN_TO_ALL = ("/healthz", "/readyz")
# Of these every browser sends at least one with a POST to another site.
BROWSER_MARKS = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site")
NOBODY = "nobody in particular"


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    detail: str
    accepts: tuple[str, ...] = ()
    """What would prove who it is."""


class Guard:
    """Of one configuration."""

    def __init__(self, config: model.Admin, users: Users, before: Guard | None = None) -> None:
        self.config = config
        self._users = users
        self._admission = admission_of(config.addresses)
        self._names = {"localhost", config.host, socket.gethostname().lower()}
        self._limiter: Limiter = before._limiter if before is not None else Limiter()

    def refusal(self, request: web.Request, tls: StandardTls | None, public: bool) -> Refusal | str:
        """Why this request is not answered; else who sends it. `public`: it reads what everybody may."""
        if self._admission is not None and (request.remote or "") not in self._admission:
            return Refusal(403, "This address is not allowed at the admin port.")
        if request.path in OPEN_TO_ALL:
            return NOBODY
        foreign = self._foreign(request)
        if foreign is not None:
            return Refusal(403, foreign)
        if self.config.auth and not public:
            return self._by_proof(request, tls)
        if not (self.config.auth or self._is_ours(request.headers.get("Host", ""), tls)):
            return Refusal(403, f"The Host field names another machine: {OURS}.")
        if request.method == "POST" and not (self.config.is_loopback or is_near(request.remote)):
            return Refusal(
                403,
                "This port asks for no credentials (admin.auth), so it is steered from its own machine only.",
            )
        return NOBODY

    # --- strangers ------------------------------------------------------------------------------

    def _by_proof(self, request: web.Request, tls: StandardTls | None) -> Refusal | str:
        remote, token = request.remote, bearer(request)
        found = None
        if token is not None and "token" in self.config.auth:
            found = self._users.by_token(token)
        elif "certificate" in self.config.auth:
            found = self._users.by_certificate(chain_of(_connection(request)))
            if found is not None and not self._is_ours(request.headers.get("Host", ""), tls):
                return Refusal(403, f"The Host field names another machine: {OURS}.")
        if found is None:
            if token is not None:
                self._say(f"{remote} came with an unknown token")
            return Refusal(401, self._wanted(token), accepts=self.config.auth)
        needed = "control" if request.method == "POST" else "read"
        if found.rights.admin not in (needed, "control"):
            self._say(f"{found.name} at {remote} may not {request.method} {request.path}")
            mend = f"may: {{admin: {needed}}}"
            return Refusal(403, f"The user {found.name} has no right to this: it takes {mend}.")
        return found.name

    def _wanted(self, token: str | None) -> str:
        if token is not None:
            return "The token is unknown here."
        kinds = {"token": "a token (Authorization: Bearer)", "certificate": "a client certificate of a user"}
        return f"This port wants {' or '.join(kinds[kind] for kind in self.config.auth)}."

    def _say(self, sentence: str) -> None:
        held = self._limiter.passes(sentence)
        if held is not None:
            log.warning("the admin port: %s%s", sentence, f" ({held} more like this before)" if held else "")

    # --- other sites' pages ---------------------------------------------------------------------

    def _foreign(self, request: web.Request) -> str | None:
        """Why this request is another site's page's; None where it is not."""
        origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
        if origin is not None and origin != f"{self.config.scheme}://{host}":
            return "The request comes from another site's page."
        site, mode = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Sec-Fetch-Mode")
        # A link that leads here is followed; its page does not see what it leads to.
        followed = request.method == "GET" and mode == "navigate"
        if site not in ("none", "same-origin") and not followed:
            return "The request comes from another site's page."
        if request.method != "POST" or not any(mark in request.headers for mark in BROWSER_MARKS):
            return None
        if request.content_type == "application/json" or "Broker-Admin" in request.headers:
            return None
        return "A browser's POST needs a Broker-Admin header, or the content type application/json."

    def _is_ours(self, host: str, tls: StandardTls | None) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        name = name.lower()
        if name in self._names or (tls is not None and tls.is_named(name)):
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


OURS = "use an address, localhost, this machine's name, or one of the port's certificate"


def bearer(request: web.Request) -> str | None:
    """The token of `Authorization: Bearer` (RFC 6750)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_near(remote: str | None) -> bool:
    """Whether this address is the machine's own loopback."""
    return model.is_loopback((remote or "").removeprefix("::ffff:"))


def _connection(request: web.Request) -> ssl.SSLObject | None:
    found: ssl.SSLObject | None = request.get_extra_info("ssl_object")
    return found
