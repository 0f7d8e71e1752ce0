"""What a failed step of `broker doctor` most likely means, and what mends it."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    cause: str = ""
    mend: str = ""


NONE = Advice()

# The first whose step is the failed one ("" for any) and whose pattern is found in its words.
TABLE: tuple[tuple[str, str, Advice], ...] = (
    (
        "name",
        "",
        Advice(
            "the name is misspelt, or this machine's DNS does not know it",
            "correct `connect[].url`, or ask whoever runs the DNS: getent hosts NAME",
        ),
    ),
    (
        "route",
        "",
        Advice(
            "this machine has no route to that network", "ip route get ADDRESS; a VPN or gateway may be down"
        ),
    ),
    (
        "proxy",
        r"407|credential|authenticat",
        Advice(
            "the proxy wants a login, or does not know this one", "`connect[].proxy: {url, credentials_file}`"
        ),
    ),
    (
        "proxy",
        "",
        Advice(
            "the proxy can't be reached, or does not allow this address",
            "check `connect[].proxy` or HTTPS_PROXY, NO_PROXY; the proxy must allow CONNECT to that port",
        ),
    ),
    (
        "tcp",
        r"refused",
        Advice(
            "nothing listens at that port, or a firewall answers for it",
            "is `broker serve` up there, with this port in `registration[].listen`? broker doctor there says;"
            " where only a proxy may go out: `connect[].proxy`",
        ),
    ),
    (
        "tcp",
        r"within|timed out",
        Advice(
            "a firewall drops the packets, or the address is not in use",
            "allow outgoing connections to this address and port; where only a proxy may go out:"
            " `connect[].proxy`",
        ),
    ),
    ("tcp", "", Advice("the network does not lead there", "ip route get ADDRESS")),
    (
        "tls",
        r"speak TLS",
        Advice(
            "the port speaks plain HTTP, or is no registration port",
            "write http:// in `connect[].url`, or give the registration port `tls`",
        ),
    ),
    (
        "tls",
        r"expired",
        Advice(
            "its certificate is past its end, or this machine's clock is ahead",
            "date; then renew the certificate and `broker reload` there",
        ),
    ),
    (
        "tls",
        r"not (yet )?valid( yet)?",
        Advice("its certificate begins later, or this machine's clock is behind", "date; timedatectl"),
    ),
    (
        "tls",
        r"but not for",
        Advice(
            "the certificate is for another name",
            "dial a name that stands in it: broker tls check HOST:PORT lists them",
        ),
    ),
    (
        "tls",
        r"revoked",
        Advice("the certificate was revoked", "present another one there, and `broker reload`"),
    ),
    (
        "tls",
        r"wants a certificate|our certificate",
        Advice(
            "the port wants a certificate of the agent, or does not believe the one that it got",
            "`connect[].tls: {cert, key}` with a certificate of the CA in its `tls.client.ca`",
        ),
    ),
    (
        "tls",
        r"not trusted|unknown|self.signed|can't be verified|unable to get",
        Advice(
            "its certificate is of a CA that this agent does not know, or a proxy in between opens TLS",
            "`connect[].tls.ca`: the file of that CA; broker tls check HOST:PORT says who has signed it",
        ),
    ),
    (
        "tls",
        "",
        Advice(
            "something between here and there breaks TLS, or both have no version in common",
            "broker tls check HOST:PORT",
        ),
    ),
    (
        "registration",
        r"speaks TLS",
        Advice("the port speaks TLS, and is dialled in plain", "write https:// in `connect[].url`"),
    ),
    (
        "registration",
        r"agents connect here",
        Advice(
            "a proxy in between takes `Upgrade` out of what passes, or speaks HTTP/1.0",
            "let it pass Upgrade and Connection in HTTP/1.1 (nginx: proxy_http_version 1.1; proxy_set_header"
            " Upgrade $http_upgrade; proxy_set_header Connection upgrade), or dial past it",
        ),
    ),
    (
        "registration",
        r"426|another version",
        Advice(
            "both speak different versions of the tunnel protocol", "install the same version on both sides"
        ),
    ),
    (
        "registration",
        r"wants a certificate|our certificate",
        Advice(
            "the port wants a certificate of the agent, or does not believe the one that it got",
            "`connect[].tls: {cert, key}` with a certificate of the CA in its `tls.client.ca`",
        ),
    ),
    (
        "registration",
        r"401|unauthenticated",
        Advice(
            "the token or certificate is missing, or no user has it",
            "`connect[].token_file`; its hash (broker token hash) must stand in `users[].tokens` there",
        ),
    ),
    (
        "registration",
        r"conflict|409",
        Advice(
            "another user's agent has this service now",
            "broker status on the DMZ node says who; offer another host or path, or use the same user",
        ),
    ),
    (
        "registration",
        r"403|forbidden",
        Advice(
            "the user has no right to these services", "`users[].may` on the DMZ node, then broker reload"
        ),
    ),
    (
        "registration",
        r"429|rate-limited",
        Advice(
            "the user has as many tunnels as allowed, or this network failed too often",
            "`users[].may.tunnels`; or wait until the penalty is over",
        ),
    ),
    (
        "registration",
        r"404|not like a registration|does not answer like|bad-answer|only asked",
        Advice(
            "something else listens there: an external port, or a proxy in between",
            "check the port in `connect[].url`; a proxy must pass `Upgrade`",
        ),
    ),
    (
        "registration",
        r"closed the connection",
        Advice(
            "the port does not accept this address (`allow`, `deny`), speaks TLS, or a firewall cuts it",
            "`registration[].allow` there; https:// in `connect[].url`",
        ),
    ),
    ("registration", "", Advice("the DMZ node does not take this agent", "its log says why")),
    (
        "rights",
        r"conflict",
        Advice(
            "another user's agent has this service now",
            "broker status on the DMZ node says who; offer another host or path, or use the same user",
        ),
    ),
    (
        "rights",
        r"forbidden",
        Advice("the user has no right to this service", "`users[].may` on the DMZ node, then broker reload"),
    ),
    ("rights", "", Advice("the DMZ node does not take this service", "its log says why")),
    (
        "clock",
        "",
        Advice(
            "one of both clocks is wrong: certificates and tokens with dates will look invalid",
            "timedatectl, on both machines",
        ),
    ),
    (
        "upstream",
        r"refused",
        Advice(
            "the service is not up, or listens at another port", "start it, or correct `services[].upstream`"
        ),
    ),
    (
        "upstream",
        r"resolve",
        Advice(
            "the name is misspelt, or this machine's DNS does not know it", "correct `services[].upstream`"
        ),
    ),
    (
        "upstream",
        r"TLS",
        Advice("the service's certificate is not believed", "`services[].tls`: its CA, or its name"),
    ),
    (
        "upstream",
        "",
        Advice("the service does not answer", "look at its log; correct `services[].upstream` or `health`"),
    ),
    (
        "failures",
        r"no-agent",
        Advice("its agents are away, or have withdrawn it", "broker doctor on the agent's machine"),
    ),
    (
        "failures",
        r"no-service",
        Advice("nobody offers what is asked for", "broker status says what is offered; the host and path"),
    ),
    (
        "failures",
        r"upstream",
        Advice(
            "the service behind the agent fails", "broker doctor on the agent's machine; the service's log"
        ),
    ),
    (
        "failures",
        r"tunnel-lost",
        Advice("the network between agent and this node breaks", "the agent's log says since when, and how"),
    ),
    (
        "failures",
        r"overloaded|rate-limited",
        Advice("a limit is reached", "broker status says what is used; `limits`"),
    ),
    ("failures", "", Advice("clients ask for what is not allowed", "the access log says who: `access_log`")),
    (
        "port",
        r"refused",
        Advice(
            "nothing listens there",
            "is `broker serve` running with this very file? Its log says what it listens on",
        ),
    ),
    (
        "port",
        "",
        Advice("the port can't be reached from this machine", "its address; the firewall of this machine"),
    ),
    (
        "node",
        r"refused: |credential|client certificate",
        Advice(
            "the admin port wants a credential",
            "--token-file, or --cert and --key, of a user with `may.admin`",
        ),
    ),
    (
        "node",
        r"not believed",
        Advice(
            "another name or CA than is expected",
            "--ca names the CA; --admin the URL that its certificate is for",
        ),
    ),
    (
        "node",
        r"admin port",
        Advice("the node is not running, or was started with another admin port", "broker serve CONFIG"),
    ),
    ("node", "", Advice("it starts, drains, or has no worker", "its log says why")),
    (
        "certificates",
        "",
        Advice("nobody has renewed it", "replace the files, then broker reload; broker tls show CONFIG"),
    ),
    (
        "agents",
        r"unauthenticated",
        Advice(
            "agents come with a token or certificate that no user has",
            "`users[].tokens` must have the hash (broker token hash) of the agent's token; broker reload",
        ),
    ),
    (
        "agents",
        r"forbidden",
        Advice("agents offer what their user may not", "`users[].may.services`, then broker reload"),
    ),
    (
        "agents",
        r"conflict",
        Advice(
            "agents offer what belongs to another user",
            "broker status says whose it is; offer another host or path, or use the same user",
        ),
    ),
    (
        "agents",
        r"unsupported|upgrade",
        Advice(
            "something else than an agent comes, or one of another protocol version",
            "install the same version on both sides; its log says who came",
        ),
    ),
    (
        "agents",
        "",
        Advice(
            "no agent has logged in, or all were refused",
            "broker doctor on the agent's machine; this node's log names refused ones",
        ),
    ),
)


def advice_for(step: str, words: str) -> Advice:
    for name, pattern, advice in TABLE:
        if name == step and re.search(pattern, words, re.IGNORECASE):
            return advice
    return NONE
