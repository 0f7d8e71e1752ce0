"""Who is registered at a registration port.

One `Member` per tunnel, known by user, agent, process instance and tunnel index. A new login of the same
four evicts the old tunnel at once; replicas of an agent have other instances and join as one group. Every
login is a new object, and what comes late is fenced by it: the end of an evicted tunnel takes nothing away
from its successor.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from _fastpath.guard import Quota
from _fastpath.tunnel import Tunnel
from broker.config.model import Match
from broker.identity.login import Denied, Evidence, Wants, log_in, still_enough
from broker.identity.patterns import may_announce, may_split
from broker.identity.users import Principal, Users
from broker.observe.totals import AgentTotals
from broker.tunnel.arrivals import Arrivals
from broker.tunnel.dialler import host_of
from broker.tunnel.directory import Cut, Directory
from broker.tunnel.handshake import Refusal, Registration
from broker.tunnel.ledger import Arbiter, Claim, MemberKey, Verdict, numbers
from broker.tunnel.links import close_when_idle, tell
from broker.tunnel.messages import (
    MAX_SENTENCE,
    Announce,
    printable,
    read_control,
    redial_bytes,
    refused_bytes,
)

log = logging.getLogger("broker.tunnel")

CONTROL_BURST = 20.0  # control messages that an agent may send at once,
CONTROL_PER_S = 2.0  # and in the long run
MAX_REFUSED_TOLD = 500
# Codes of end.pxd.
CODE_PROTOCOL = 1
CODE_REFUSED = 4
CODE_OVERLOADED = 5
CODE_FORBIDDEN = 8
CODE_TUNNEL_LOST = 18  # the connection ended; after a GOAWAY that is as it should be

Accepted = dict[Match, None]
Refused = list[tuple[Match, str, str]]


@dataclass(slots=True, eq=False)
class Member:
    """One registered tunnel."""

    key: MemberKey
    generation: int  # grows with every login
    principal: Principal
    registration: Registration
    address: str
    since: float  # wall clock
    accepted: Accepted = field(default_factory=dict)
    refused: Refused = field(default_factory=list)
    tunnel: Tunnel | None = None  # set by `join`
    claimed: int = 0  # the generation of its claim, where other workers have tunnels too
    control_credit: float = CONTROL_BURST
    control_at: float = 0.0

    @property
    def label(self) -> str:
        return f"agent {self.registration.agent}, tunnel {self.registration.index} from {self.address},"

    @property
    def agent(self) -> tuple[str, str]:
        return self.principal.name, self.registration.agent

    @property
    def link(self) -> Tunnel:
        assert self.tunnel is not None, "only members that joined have a tunnel"
        return self.tunnel


class Registry:
    """All tunnels of one registration port. Not thread-safe: used from its event loop only."""

    def __init__(
        self, name: str, directory: Directory, users: Users, *, max_tunnels: int, max_streams: int
    ) -> None:
        self.name = name
        self.directory = directory
        self.logins = 0
        self.evicted = 0
        self.lost = 0
        self.totals = AgentTotals()
        self._users = users
        self._wants = Wants()
        self._max_tunnels = max_tunnels
        self._max_streams = max_streams
        self._generations = itertools.count(1)
        self._members: dict[MemberKey, Member] = {}
        self._per_user: Counter[str] = Counter()
        self._quotas: dict[str, Quota] = {}  # of users that are, or were, here
        self.arrivals = Arrivals(name)
        self.arbiter: Arbiter | None = None  # where other workers have tunnels too
        self._superseded: set[Member] = set()  # replaced while draining: their last streams still run

    # --- logging in ---------------------------------------------------------------------------

    def authenticate(self, shown: Evidence) -> Principal:
        try:
            return log_in(self._users, self._wants, shown)
        except Denied as denied:
            raise Refusal(denied.status, denied.code, denied.sentence) from None

    def admit(self, principal: Principal, registration: Registration, address: str) -> Member:
        """Whether this agent may register, and with which of its services. Changes nothing yet."""
        key = (principal.name, registration.agent, registration.instance, registration.index)
        if key not in self._members:
            self._check_numbers(principal)
        member = Member(key, next(self._generations), principal, registration, address, time.time())
        member.accepted, member.refused = self._judge(principal, registration.services)
        if member.refused and not member.accepted:
            _, code, reason = member.refused[0]
            raise Refusal(409 if code == "conflict" else 403, code, f"{reason[:1].upper()}{reason[1:]}.")
        return member

    def streams_for(self, member: Member) -> int:
        """Streams that we may open in this member's tunnel at once."""
        return min(member.registration.streams, self._max_streams)

    def quota_of(self, principal: Principal) -> Quota:
        """What the streams of all of this user's tunnels count in, held to the rights that he has now."""
        quota = self._quotas.setdefault(principal.name, Quota())
        quota.set_limit(principal.rights.streams)
        return quota

    def join(self, member: Member, tunnel: Tunnel) -> None:
        """The tunnel of an admitted member is up: its services open, and its predecessor is evicted."""
        member.tunnel = tunnel
        self.logins += 1
        self.arrivals.arrived()
        predecessor = self._members.get(member.key)
        self._members[member.key] = member
        self._per_user[member.principal.name] += 1
        for service in member.accepted:
            self.directory.open(service, tunnel, member.principal.name)
        if predecessor is not None:
            self._evict(predecessor)
        self._tell_refused(member)
        self.directory.publish()
        log.info(
            "%s registered at %s as user %s with %s",
            member.label, self.name, member.principal.name, _shown(member.accepted),
        )  # fmt: skip

    def _check_numbers(self, principal: Principal) -> None:
        user, may = principal.name, principal.rights.tunnels
        refusal = numbers(user, len(self._members), self._max_tunnels, self._per_user[user], may)
        if refusal is not None:
            raise refusal

    def claim(self, member: Member, then: Callable[[Refusal | None], None]) -> None:
        """Ask whether the other workers agree with what was admitted; `then` may be called at once."""
        if self.arbiter is None:
            then(None)
            return

        def on_verdict(verdict: Verdict) -> None:
            if verdict.refusal is None:
                member.claimed = verdict.generation
                without(member.accepted, member.refused, verdict.conflicts)
            then(verdict.refusal)

        self.arbiter.claim(self._claim_of(member, member.accepted), on_verdict)

    def unclaim(self, member: Member) -> None:
        """The tunnel of a claimed member is gone, or did not come to be."""
        if self.arbiter is not None and member.claimed:
            self.arbiter.left(self.name, member.key, member.claimed)

    def _claim_of(self, member: Member, services: Iterable[Match]) -> Claim:
        host = host_of(member.address)
        tunnels = member.principal.rights.tunnels
        return Claim(self.name, member.key, host, tuple(services), tunnels, self._max_tunnels)

    def evict(self, key: MemberKey) -> None:
        """The same agent has logged in at another worker."""
        member = self._members.pop(key, None)
        if member is not None:
            self._evict(member)
            self.directory.publish()

    def _judge(self, principal: Principal, services: Iterable[Match]) -> tuple[Accepted, Refused]:
        accepted: Accepted = {}
        refused: Refused = []
        for service in services:
            verdict = self._verdict(principal, service)
            if verdict is None:
                accepted[service] = None
            else:
                refused.append((service, *verdict))
        return accepted, refused

    def _verdict(self, principal: Principal, service: Match) -> tuple[str, str] | None:
        """Why this user may not announce this service, as code and clause; None: he may."""
        if not may_announce(principal.rights, service):
            return "forbidden", f"user {principal.name} has no right to the service {service}"
        rival = self.directory.rival(service, principal.name)
        if rival == service:
            return "conflict", f"the service {service} is taken by another user"
        if rival is not None and not may_split(principal.rights, service, rival):
            return "conflict", f"the service {service} is part of {rival}, which is taken by another user"
        if not self.directory.has_room(service):
            return "overloaded", "too many services are registered here"
        return None

    def _evict(self, member: Member) -> None:
        """`member` is not the current holder of its key any more."""
        self._release(member)
        if member.link.draining:
            self._superseded.add(member)
            return
        self.evicted += 1
        log.info("%s is replaced by a new login", member.label)
        member.link.close(CODE_REFUSED, "replaced by a new login of the same agent")

    def _release(self, member: Member) -> None:
        self._per_user[member.principal.name] -= 1
        for service in member.accepted:
            self.directory.leave(service, member.link)

    # --- while a tunnel is up -----------------------------------------------------------------

    def on_control(self, member: Member, payload: bytes) -> None:
        if self._members.get(member.key) is not member:
            return
        if not _spend_control(member):
            self._expel(member, CODE_OVERLOADED, "too many control messages")
            return
        try:
            message = read_control(payload)
        except ValueError as error:
            self._expel(member, CODE_PROTOCOL, f"a control message is malformed: {error}")
            return
        if isinstance(message, Announce):
            self._announce(member, message.services, message.down)

    def on_goaway(self, member: Member) -> None:
        """The agent takes no new streams: it ends, or is replaced. Its services stay known."""
        if self._members.get(member.key) is member:
            log.info("%s is leaving %s", member.label, self.name)
        close_when_idle(member.link, "all streams have ended")

    def on_close(self, member: Member, code: int, reason: str) -> None:
        """The member's tunnel has closed: take away what this very login brought, and no more."""
        self.totals.ended(member.agent, member.link.counters())
        self._superseded.discard(member)
        if self._members.get(member.key) is not member:
            return
        del self._members[member.key]
        self.unclaim(member)
        self._release(member)
        self.directory.publish()
        if code == 0 or (code == CODE_TUNNEL_LOST and member.link.draining):
            log.info("%s left %s", member.label, self.name)
        else:
            self.lost += 1
            log.warning("%s was lost by %s: %s", member.label, self.name, printable(reason) or f"code {code}")

    def _expel(self, member: Member, code: int, reason: str) -> None:
        log.warning("%s is sent away by %s: %s", member.label, self.name, reason)
        del self._members[member.key]
        self.unclaim(member)
        self._release(member)
        self.directory.publish()
        member.link.close(code, reason[:MAX_SENTENCE])

    def _announce(
        self,
        member: Member,
        services: Iterable[Match],
        down: Iterable[Match] = (),
        cut: Cut | None = None,
    ) -> None:
        accepted, refused = self._judge(member.principal, services)
        away = {service for service in down if self._verdict(member.principal, service) is None}
        if self.arbiter is None:
            self._settle(member, accepted, refused, away, cut)
            return

        def on_verdict(verdict: Verdict) -> None:
            if self._members.get(member.key) is member:
                member.claimed = verdict.generation or member.claimed
                without(accepted, refused, verdict.conflicts)
                self._settle(member, accepted, refused, away, cut)

        self.arbiter.claim(self._claim_of(member, accepted), on_verdict)

    def _settle(
        self, member: Member, accepted: Accepted, refused: Refused, away: set[Match], cut: Cut | None
    ) -> None:
        """The services of a member that is here are these from now on."""
        before = member.accepted
        member.accepted, member.refused = accepted, refused
        for service in before:
            if service not in accepted:
                if service in away:
                    self.directory.leave(service, member.link)
                else:
                    self.directory.withdraw(service, member.link, cut)
        for service in away:
            self.directory.know(service, member.principal.name)
        for service in accepted:
            if service not in before:
                self.directory.open(service, member.link, member.principal.name)
        self._tell_refused(member)
        self.directory.publish()

    def _tell_refused(self, member: Member) -> None:
        if not member.refused:
            return
        tell(member.link, refused_bytes(member.refused[:MAX_REFUSED_TOLD]))
        log.warning(
            "%s: %s refuses %d of its services; the first: %s",
            member.label, self.name, len(member.refused), member.refused[0][2],
        )  # fmt: skip

    # --- from the node ------------------------------------------------------------------------

    def apply(self, users: Users, wants: Wants, *, max_tunnels: int, max_streams: int) -> None:
        """A reload: live tunnels keep what they may still have, and lose what was taken away."""
        self._users = users
        self._wants = wants
        self._max_tunnels = max_tunnels
        self._max_streams = max_streams
        for member in list(self._members.values()):
            principal = users.renew(member.principal)
            if principal is None or not still_enough(principal, wants):
                self._expel(member, CODE_FORBIDDEN, "its credentials are not valid any more")
            elif principal != member.principal:
                self._change_rights(member, principal)
        self._shed()
        here = {name for name, tunnels in self._per_user.items() if tunnels}
        self._quotas = {name: quota for name, quota in self._quotas.items() if name in here}

    def _shed(self) -> None:
        """Users that may have fewer tunnels than they have lose the newest."""
        for member in sorted(self._members.values(), key=lambda each: each.generation, reverse=True):
            user, allowed = member.principal.name, member.principal.rights.tunnels
            if allowed is not None and self._per_user[user] > allowed:
                self._expel(member, CODE_FORBIDDEN, f"user {user} may have no more than {allowed} tunnels")

    def _change_rights(self, member: Member, principal: Principal) -> None:
        """What was taken away ends: no new streams, and those that run are reset."""
        member.principal = principal
        self.quota_of(principal)
        wanted = [*member.accepted, *(service for service, _, _ in member.refused)]
        self._announce(member, wanted, cut=(CODE_FORBIDDEN, "the right to this service was taken away"))

    @property
    def tunnels(self) -> int:
        """Tunnels that are registered, or were superseded and still have streams."""
        return len(self._members) + len(self._superseded)

    def members(self) -> list[Member]:
        return [*self._members.values(), *self._superseded]

    def ask_to_redial(self, member: Member) -> None:
        """The agent is to dial once more, where another process listens now; its tunnel here stays."""
        if self._members.get(member.key) is member:
            tell(member.link, redial_bytes())

    def goaway(self, reason: str) -> None:
        """Tell every agent that no new streams come from here."""
        for member in self.members():
            member.link.goaway(0, reason)

    def close(self, code: int, reason: str) -> None:
        self.arrivals.over()
        for member in self.members():
            member.link.close(code, reason)


def without(accepted: Accepted, refused: Refused, conflicts: Iterable[Match]) -> None:
    """Move what belongs to others."""
    for service in conflicts:
        if service in accepted:
            del accepted[service]
            refused.append((service, "conflict", f"the service {service} is taken by another user"))


def _spend_control(member: Member) -> bool:
    now = time.monotonic()
    earned = (now - member.control_at) * CONTROL_PER_S
    member.control_credit = min(CONTROL_BURST, member.control_credit + earned) - 1
    member.control_at = now
    return member.control_credit >= 0


def _shown(services: Iterable[Match]) -> str:
    names = [str(service) for service in services]
    if not names:
        return "no services"
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + rest
