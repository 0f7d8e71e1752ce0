"""The status document: what is up in a node, as plain data.

It is what `/status` answers and what metrics are made from. Several processes of one node each have theirs;
`merge` makes one of them. New fields may come at any time; a field that goes, or changes its meaning, raises
`SCHEMA_VERSION`. docs/status.schema.json is `schema()`, which a test holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.observe.document import (
    Map,
    Object,
    Plain,
    Rows,
    amount,
    count,
    counts,
    elementwise,
    first,
    name,
    names,
    setting,
    total,
)

SCHEMA_VERSION = 1
LAST_FAILURES = 100

Status = dict[str, Any]


def moment(how: Any, text: str) -> Plain:
    return Plain("number", how, f"{text} Seconds since 1970.")


TALLY = {
    "exchanges": total("Requests, and TCP connections, that were begun."),
    "active": count("Of those: under way."),
    "bytes_in": total("Bytes of request bodies, or from clients of TCP connections."),
    "bytes_out": total("Bytes of response bodies, or to clients of TCP connections."),
    "retries": total("Times that a request was sent again."),
    "statuses": Plain(
        "array",
        elementwise,
        "Responses by the first digit of their status; [0]: cut before one was complete.",
        items={"type": "integer"},
        minItems=6,
        maxItems=6,
    ),
    "failures": counts("Exchanges that ended early, by code."),
}

EXTERNAL = Object(
    "An external port.",
    {
        "name": name("Its name."),
        "url": name("Where it listens."),
        "registration": name("The registration port that it is paired with.", null=True),
        "service": name("The service that a tcp port leads to.", null=True),
        "connections": count("Connections of clients that are open."),
        "accepted": total("Connections that clients opened."),
        "refused": total("Connections refused over a limit."),
        "denied": total("Connections refused for their address, or for want of a PROXY header."),
        "paused": count("Sockets that do not accept now, for want of descriptors."),
        "handshakes": total("TLS handshakes that were completed."),
        "handshake_failures": total("TLS handshakes that failed."),
        "resumed": total("Of the completed ones: those that went on with an earlier session."),
        "rested": total("Times that an idle TLS client gave its buffers back."),
        **TALLY,
    },
)

REGISTRATION = Object(
    "A registration port.",
    {
        "name": name("Its name."),
        "url": name("Where it listens."),
        "tunnels": count("Tunnels that are registered."),
        "accepted": total("Connections that agents opened."),
        "logins": total("Tunnels that were registered."),
        "logins_pending": count("Connections that have not logged in yet."),
        "crowded_out": total("Connections that gave way to others before they logged in."),
        "turned_away": total("Connections that were refused for failed logins before."),
        "punished": count("Networks whose connections are refused: too many failed logins."),
        "evicted": total("Tunnels that a new login of the same agent replaced."),
        "lost": total("Tunnels that ended without a farewell."),
        "refusals": counts("Logins that were refused, by code."),
    },
)

CONNECT = Object(
    "A registration port that this node dials.",
    {
        "url": name("Its URL."),
        "lost": total("Tunnels that ended without a farewell."),
        "refused": Rows(
            "Services that the DMZ node does not take.",
            Object(
                "A refused service.",
                {
                    "service": name("The service."),
                    "code": name("Why, for machines."),
                    "reason": name("Why, for people."),
                },
            ),
            key=("service",),
        ),
        "tunnels": Rows(
            "Each tunnel that is wanted there.",
            Object(
                "A tunnel, or the attempt to have one.",
                {
                    "index": setting("Its number."),
                    "address": name(
                        "The address that it is meant for, of a name that has several.", null=True
                    ),
                    "state": name("up, connecting, or waiting for the next try."),
                    "since": moment(first, "Of this state."),
                    "failures": count("Tries in a row that failed."),
                    "reason": name("Why the last one did, or why the tunnel was lost."),
                },
            ),
        ),
    },
)

SESSION = {
    "streams": count("Streams that are open, whoever opened them."),
    "opened": total("Streams that this side opened."),
    "accepted": total("Streams that the other side opened."),
    "refused": total("Of those: refused for want of room, or in a drain."),
    "resets_in": total("Streams that the other side broke off."),
    "resets_out": total("Streams that this side broke off."),
    "stalls": total("Times that a stream had bytes to send and no credit left."),
    "frames_in": total("Frames received."),
    "frames_out": total("Frames sent."),
    "bytes_in": total("Bytes received."),
    "bytes_out": total("Bytes sent."),
    "rate_in": count("Bytes received per second, over the last seconds."),
    "rate_out": count("Bytes sent per second, over the last seconds."),
    "window_bytes": count("What the windows that this side gives its streams promise together."),
}

TUNNEL = Object(
    "A tunnel that is up.",
    {
        "agent": name("The agent's name."),
        "instance": name("The first part of its process's random identity."),
        "index": setting("Its number among the agent's tunnels."),
        "user": name("Who the agent has proven to be; null at the agent itself.", null=True),
        "registration": name("The registration port it came to; null at the agent.", null=True),
        "connect": name("The URL that was dialled; null at the DMZ node.", null=True),
        "node": name("The DMZ node's name; null at the DMZ node.", null=True),
        "peer": name("Address and port of the other end."),
        "since": moment(first, "When it was registered."),
        "services": names("What the agent announced and may."),
        "services_refused": names("What it announced and may not."),
        "draining": Plain("boolean", any, "No new streams are opened in it."),
        "rtt_us": setting("Smoothed round-trip time in microseconds; 0: not measured yet."),
        "rtt_s": Plain("number", first, "The same in seconds."),
        **SESSION,
        "window_growths": total("Times that a window grew."),
        "window_shrinks": total("Times that one shrank, under pressure."),
        "pings": total("Round trips that were measured."),
        "reads": total("Reads from its socket."),
        "writes": total("Writes to its socket."),
        "active": count("The same as streams."),
    },
)

AGENT = Object(
    "An agent at one registration port, or this agent at one that it dials.",
    {
        "at": name("The registration port's name, or the URL that is dialled."),
        "user": name("Who it has proven to be.", null=True),
        "agent": name("Its name; (other) stands for those that are counted together."),
        "tunnels": count("Tunnels that are up."),
        "tunnels_ended": total("Tunnels that are over."),
        **SESSION,
    },
)

BACKEND = Object(
    "One address of a service.",
    {
        "address": name("The address and port, or path."),
        "weight": setting("Its share, by the configuration."),
        "healthy": Plain("boolean", all, "The last checks have succeeded, or there are none."),
        "ejected": Plain("boolean", all, "It is left out for a while, since it has failed."),
        "active": count("Requests, and TCP connections, that are under way there."),
        "idle": count("Idle connections that are kept."),
        "exchanges": total("Requests, and TCP connections, that were joined to it."),
        "failures": total("Times that it could not be reached, or failed."),
        "ejections": total("Times that it was left out."),
        "problem": name("Why the last check has failed; empty: it has not."),
    },
)

SERVICE = Object(
    "A service that this node reaches itself, or that agents announced.",
    {
        "at": name(
            "An external port's name, or the URL that it is announced at; null: agents have it.",
            null=True,
        ),
        "registration": name("The registration port that agents announced it at.", null=True),
        "service": name("Host and path, or name."),
        "kind": name("http, tcp or tls."),
        "user": name("Whose agents announced it.", null=True),
        "tunnels": count("Tunnels that lead to it.", null=True),
        "waiting": count("Requests that wait for an agent.", null=True),
        "upstreams": names("The URLs that it is configured with."),
        "addresses": names("What they resolve to now."),
        "problem": name("Why they do not all resolve; empty: they do."),
        "backends": Rows("How each of these does.", BACKEND, key=("address",)),
        "connects": total("Connections that were opened.", null=True),
        "connect_failures": total("Connections that failed.", null=True),
        "reused": total("Requests that took an idle connection.", null=True),
        "idle": count("Idle connections that are kept.", null=True),
        "exchanges": total("Requests, and TCP connections, that were joined to it."),
        "active": count("Of those: under way.", null=True),
        "bytes_in": total("Bytes of request bodies.", null=True),
        "bytes_out": total("Bytes of response bodies.", null=True),
        "retries": total("Times that a request was sent again over another connection."),
        "statuses": Plain(
            "array",
            elementwise,
            "Responses by the first digit of their status.",
            null=True,
            items={"type": "integer"},
        ),
        "failures": counts("Exchanges that ended early, by code."),
    },
)

HISTOGRAM = Object(
    "How long a hop took.",
    {
        "buckets": Plain(
            "array",
            elementwise,
            "Exchanges by the bucket that their time fell into, see durations_us; the last: beyond.",
            items={"type": "integer"},
        ),
        "sum_s": amount("All times together, in seconds."),
    },
)

REQUESTS = Object(
    "What was counted of one service at one port when each exchange had ended.",
    {
        "port": name("The external port's name; in an agent the URL that was dialled."),
        "service": name("The service; (none): nothing matched, (other): those beyond the first 200."),
        "bytes_in": total("Bytes of request bodies."),
        "bytes_out": total("Bytes of response bodies."),
        "retries": total("Times that a request was sent again."),
        "statuses": counts("Exchanges by status; none: cut, or a TCP connection."),
        "failures": Map(
            counts("By whether the service can have seen the request: never-sent, maybe-sent, sent."),
            "Exchanges that ended early, by code.",
        ),
        "durations": Map(
            HISTOGRAM,
            "client: until the request's head was whole; wait: until a tunnel or connection had taken it;"
            " upstream: until the head of the response; response: until its last byte; total: all of it.",
        ),
    },
)

FAILURE = Object(
    "An exchange that ended early.",
    {
        "time": moment(first, "When it ended."),
        "port": name("The external port's name; in an agent the URL that was dialled."),
        "hop": name("Where it went wrong: client, node, tunnel or upstream."),
        "code": name("Why, in the words of Broker-Error."),
        "reason": name("Why, in the words of the hop that noticed; may be empty."),
        "delivery": name("Whether the service can have seen the request."),
        "status": setting("What the client was answered; 0: its connection was cut."),
        "client": name("The client's address; empty in an agent."),
        "user": name("Who the client has proven to be; empty: nobody."),
        "method": name("Of the request; empty where there was none."),
        "target": name("Of the request, without its query; shortened where it is long."),
        "host": name("That the request was for."),
        "service": name("The service that it led to."),
        "tunnel": name("USER/AGENT/NUMBER of the tunnel that it took last, in an agent its URL and number."),
        "tries": count("How often it was joined to a tunnel or connection."),
        "total_s": amount("How long it took, in seconds."),
        "request_id": name("X-Request-Id."),
    },
)

CERTIFICATE = Object(
    "A file that expires: a certificate, a revocation list, an OCSP response.",
    {
        "at": name("Where it is used: a port, services, or the URL that is dialled."),
        "kind": name("What it is."),
        "file": name("Its path."),
        "not_after": moment(min, "When it expires."),
        "days_left": Plain("number", min, "Days until then; negative: it has expired."),
    },
)

USER = Object(
    "A user of the configuration.",
    {
        "name": name("The user's name."),
        "tokens": setting("How many tokens prove it."),
        "certificates": setting("How many rules say which certificates do."),
        "passwords": setting("How many passwords do."),
        "tunnels": count("Tunnels of the user's agents that are up."),
        "may": names("What the user may announce."),
        "admin": name("What the user may do at an admin port that asks who he is: none, read or control."),
        "max_tunnels": setting("How many tunnels the user may have at each registration port.", null=True),
        "max_streams": setting("How many streams in each of them.", null=True),
    },
)

ACCESS_LOG = Object(
    "The access log.",
    {
        "path": name("Where it is written to."),
        "format": name("json or combined."),
        "records": total("Records that were made."),
        "dropped": total("Records that were lost, since they could not be written in time or at all."),
        "problem": name("Why it cannot be written now; empty: it can."),
    },
    null=True,
)

TRACING = Object(
    "Tracing.",
    {
        "endpoint": name("Where spans are sent to."),
        "traced": total("Exchanges that were traced."),
        "exported": total("Spans that the receiver has taken, two of most exchanges."),
        "dropped": total("Spans that were lost, since there were too many or they could not be sent."),
        "problem": name("Why they cannot be sent now; empty: they can."),
    },
    null=True,
)


WORKER = Object(
    "A worker.",
    {
        "index": setting("Its number, from 0."),
        "pid": setting("Of its process."),
        "state": name("up or starting."),
        "uptime_s": Plain("number", first, "Seconds since its process was started."),
        "restarts": setting("How often it was replaced."),
    },
)

DOCUMENT = Object(
    "What is up in a node.",
    {
        "schema": Plain("integer", first, "Version of this description.", const=SCHEMA_VERSION),
        "time": moment(max, "When this was true."),
        "node": name("The node's name."),
        "version": name("Of the program."),
        "pid": setting("Of the process that answers."),
        "processes": count("Processes that this is about."),
        "uptime_s": Plain("number", max, "Seconds since the start."),
        "ready": Plain("boolean", all, "The node can serve."),
        "reasons": names("Why it cannot."),
        "state": name("starting, serving, draining or stopped."),
        "source": name("The configuration file; null: the command line.", null=True),
        "admin": Object("The admin port.", {"url": name("Where it listens.")}, null=True),
        "workers": Rows("Worker processes; empty where the node is one process.", WORKER),
        "external": Rows("External ports.", EXTERNAL, key=("name",), lasting=True),
        "registration": Rows("Registration ports.", REGISTRATION, key=("name",), lasting=True),
        "connect": Rows("Registration ports that are dialled.", CONNECT, key=("url",), lasting=True),
        "users": Rows("Users.", USER, key=("name",)),
        "agents": Rows("Agents.", AGENT, key=("at", "user", "agent"), lasting=True),
        "tunnels": Rows("Tunnels.", TUNNEL),
        "services": Rows("Services.", SERVICE, key=("at", "registration", "service")),
        "requests": Rows("Requests by port and service.", REQUESTS, key=("port", "service"), lasting=True),
        "durations_us": Plain(
            "array",
            first,
            "Upper bounds of the buckets of durations, in microseconds; one more bucket is beyond.",
            items={"type": "integer"},
        ),
        "last_failures": Rows(
            "The last exchanges that ended early, the latest first.", FAILURE, latest=LAST_FAILURES
        ),
        "certificates": Rows("Certificates.", CERTIFICATE, key=("kind", "at", "file")),
        "access_log": ACCESS_LOG,
        "tracing": TRACING,
        "memory": Object(
            "Memory, in bytes.",
            {
                "resident_bytes": count("Of the process, as the kernel counts it."),
                "buffer_bytes": count("In the buffers that limits.memory bounds."),
                "buffers": count("Number of those."),
                "limit_bytes": count("limits.memory."),
                "window_bytes": count("What the windows of all tunnels' streams promise together."),
                "window_limit_bytes": count("What that may grow to, with the tunnels that are up."),
            },
        ),
        "process": Object(
            "What the process uses.",
            {
                "cpu_s": amount("Processor time, user and system, in seconds."),
                "descriptors": count("Open descriptors."),
                "descriptor_limit": Plain("integer", min, "How many there may be, in each process."),
                "threads": count("Threads."),
                "started": moment(min, "When it was started."),
            },
        ),
        "loop": Object(
            "The event loop.",
            {
                "wakeups": total("Times that it woke for data sockets."),
                "batches": total("Batches of work; several may follow one wake-up."),
                "events": total("Readiness events of data sockets."),
                "timers": total("Deadlines that were met."),
                "registered": count("Data sockets that are open."),
            },
        ),
        "reloads": Map(Plain("integer", max, "How many."), "Reloads of the configuration: ok, failed."),
        "limits": Map(setting("As configured.", null=True), "limits of the file: bytes and counts."),
        "timeouts": Map(setting("As configured.", null=True), "timeouts of the file: milliseconds."),
    },
)


def merge(snapshots: Sequence[Status]) -> Status:
    """One document from those of several processes of the same node and version; at least one is needed."""
    if not snapshots:
        raise ValueError("there is nothing to merge")
    merged: Status = DOCUMENT.merge(snapshots)
    return merged


def remains(status: Status) -> Status:
    """What is still true of it when its process is gone: what was counted."""
    rest: Status = DOCUMENT.remains(status)
    return rest


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tunnel-broker:status:{SCHEMA_VERSION}",
        "title": "Status of a tunnel broker node",
        **DOCUMENT.schema(),
    }
