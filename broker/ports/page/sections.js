// The tables of the page: which there are, with which columns. `rows(status, history)` makes their rows.

import { byCode, byteRate, bytes, clock, count, moment, plural, rate, span, sum } from "./format.js"
import { quantile } from "./history.js"
import { agentKey, backendState, classesOf, errorsOf, healthOf, requestKey, serviceKey } from "./model.js"

function text(title, get, more = {}) {
  return { title, get, ...more }
}

function number(title, get, show = count, more = {}) {
  return { title, get, show: (row) => show(get(row)), kind: "number", ...more }
}

function pill(title, show) {
  return { title, show, get: (row) => `${{ bad: 0, warn: 1 }[show(row).tone] ?? 2}${show(row).text}`, kind: "pill" }
}

function list(title, get, more = {}) {
  return { title, get, kind: "list", ...more }
}

const failures = text("Failures", (row) => byCode(row.failures), { wide: true, hint: "What the broker itself answered, since the start" })

const EXTERNAL = {
  id: "external",
  title: "External ports",
  key: (row) => row.name,
  columns: [
    text("Name", (row) => row.name),
    text("Listens at", (row) => row.url),
    text("Leads to", (row) => row.service ?? row.registration ?? "local services"),
    number("Connections", (row) => row.connections),
    number("Requests/s", (row) => row.rate, rate),
    number("Under way", (row) => row.active),
    number("In", (row) => row.in, byteRate),
    number("Out", (row) => row.out, byteRate),
    number("4xx", (row) => row.statuses[4]),
    number("5xx", (row) => row.statuses[5]),
    number("Cut", (row) => row.statuses[0], count, { hint: "Ended before a response was complete, and TCP connections" }),
    number("Turned away", (row) => row.refused + row.denied + row.handshake_failures, count, { hint: "Over a limit, for their address, or in the TLS handshake" }),
    failures,
  ],
  rows: (status, history) =>
    status.external.map((port) => ({
      ...port,
      rate: history.rate(`port|${port.name}|exchanges`),
      in: history.rate(`port|${port.name}|bytes_in`),
      out: history.rate(`port|${port.name}|bytes_out`),
    })),
}

const REGISTRATION = {
  id: "registration",
  title: "Registration ports",
  key: (row) => row.name,
  columns: [
    text("Name", (row) => row.name),
    text("Listens at", (row) => row.url),
    number("Tunnels", (row) => row.tunnels),
    number("Logins", (row) => row.logins),
    number("Pending", (row) => row.logins_pending, count, { hint: "Connections that have not logged in yet" }),
    number("Lost", (row) => row.lost, count, { hint: "Tunnels that ended without a farewell" }),
    number("Replaced", (row) => row.evicted, count, { hint: "By a new login of the same agent" }),
    text("Refused", (row) => byCode(row.refusals), { wide: true }),
    number("Networks punished", (row) => row.punished),
  ],
  rows: (status) => status.registration,
}

const CONNECT = {
  id: "connect",
  title: "Dialled registration ports",
  key: (row) => `${row.url}|${row.index}|${row.address ?? ""}`,
  columns: [
    text("DMZ node", (row) => row.url),
    number("Tunnel", (row) => row.index, count, { named: true }),
    text("Address", (row) => row.address),
    pill("State", (row) => ({ tone: row.state === "up" ? "good" : row.state === "connecting" ? "warn" : "bad", text: row.state })),
    number("For", (row) => row.age, span),
    number("Tries failed", (row) => row.failures),
    text("Last failure", (row) => row.reason, { wide: true }),
    list("Services refused", (row) => row.refused, { wide: true }),
  ],
  rows: (status) =>
    status.connect.flatMap((each) => {
      const refused = each.refused.map((one) => `${one.service}: ${one.reason}`)
      return each.tunnels.map((tunnel) => ({ ...tunnel, url: each.url, refused, age: status.time - tunnel.since }))
    }),
}

const AGENTS = {
  id: "agents",
  title: "Agents",
  key: agentKey,
  sort: { by: 4, down: true },
  columns: [
    text("Agent", (row) => row.agent),
    text("User", (row) => row.user),
    text("At", (row) => row.at),
    number("Tunnels", (row) => row.tunnels),
    number("Streams", (row) => row.streams),
    number("In", (row) => row.rate_in, byteRate),
    number("Out", (row) => row.rate_out, byteRate),
    number("Received", (row) => row.bytes_in, bytes),
    number("Sent", (row) => row.bytes_out, bytes),
    number("Tunnels ended", (row) => row.tunnels_ended),
  ],
  rows: (status) => status.agents,
}

const TUNNELS = {
  id: "tunnels",
  title: "Tunnels",
  key: (row) => `${row.registration ?? row.connect}|${row.user ?? ""}|${row.agent}|${row.instance}|${row.index}|${row.peer}`,
  columns: [
    text("Agent", (row) => row.agent),
    number("No.", (row) => row.index, count, { named: true }),
    text("User", (row) => row.user),
    text("At", (row) => row.registration ?? row.connect),
    text("Other end", (row) => row.peer),
    pill("State", (row) => (row.draining ? { tone: "warn", text: "draining" } : { tone: "good", text: "up" })),
    number("Up for", (row) => row.age, span),
    number("Round trip", (row) => row.rtt_s || null, span),
    number("In", (row) => row.rate_in, byteRate),
    number("Out", (row) => row.rate_out, byteRate),
    number("Streams", (row) => row.streams),
    number("Window", (row) => row.window_bytes, bytes, { hint: "What this side has promised its streams to take, together" }),
    number("Stalls", (row) => row.stalls, count, { hint: "Times that a stream had bytes to send and no credit left" }),
    list("Services", (row) => row.services, { wide: true }),
  ],
  rows: (status) => status.tunnels.map((tunnel) => ({ ...tunnel, age: status.time - tunnel.since })),
}

const SERVICES = {
  id: "services",
  title: "Services",
  key: serviceKey,
  columns: [
    text("Service", (row) => row.service),
    text("Kind", (row) => row.kind),
    text("Offered at", (row) => row.at ?? row.registration),
    pill("Health", healthOf),
    text("User", (row) => row.user),
    list("Upstreams", (row) => row.upstreams, { wide: true }),
    number("Requests/s", (row) => row.rate, rate),
    number("Requests", (row) => row.exchanges),
    number("Under way", (row) => row.active),
    number("Waiting", (row) => row.waiting, count, { hint: "Requests that wait for an agent" }),
    failures,
  ],
  rows: (status, history) => status.services.map((each) => ({ ...each, rate: history.rate(`service|${serviceKey(each)}`) })),
}

const UPSTREAMS = {
  id: "upstreams",
  title: "Upstreams",
  key: (row) => `${serviceKey(row)}|${row.address}`,
  columns: [
    text("Address", (row) => row.address),
    text("Service", (row) => row.service),
    text("At", (row) => row.at),
    pill("State", backendState),
    text("Last check", (row) => row.problem, { wide: true }),
    number("Under way", (row) => row.active),
    number("Idle", (row) => row.idle, count, { hint: "Connections that are kept for the next request" }),
    number("Requests", (row) => row.exchanges),
    number("Failed", (row) => row.failures),
    number("Left out", (row) => row.ejections, count, { hint: "Times that it was left out for a while" }),
    number("Weight", (row) => row.weight),
  ],
  rows: (status) =>
    status.services.flatMap((service) =>
      service.backends.map((each) => ({ ...each, service: service.service, at: service.at, registration: service.registration })),
    ),
}

const REQUESTS = {
  id: "requests",
  title: "Requests",
  note: "By port and service, since the start. Median and 95 % are those of the last seconds, or since the start where nothing came.",
  key: requestKey,
  sort: { by: 3, down: true },
  columns: [
    text("Service", (row) => row.service),
    text("Port", (row) => row.port),
    number("Requests/s", (row) => row.rate, rate),
    number("Requests", (row) => row.total),
    number("2xx", (row) => row.classes["2xx"]),
    number("3xx", (row) => row.classes["3xx"]),
    number("4xx", (row) => row.classes["4xx"]),
    number("5xx", (row) => row.classes["5xx"]),
    number("Cut", (row) => row.classes.cut, count, { hint: "Ended before a response was complete, and TCP connections" }),
    number("Median", (row) => row.median, span),
    number("95 %", (row) => row.tail, span),
    number("Sent again", (row) => row.retries),
    text("Failures", (row) => row.errors, { wide: true }),
  ],
  rows: (status, history) =>
    status.requests.map((row) => {
      const key = requestKey(row)
      const recent = history.growths(`buckets|${key}`)
      const buckets = recent && sum(recent) ? recent : row.durations.total?.buckets
      const errors = Object.fromEntries(Object.entries(row.failures).map(([code, facts]) => [code, sum(Object.values(facts))]))
      return {
        port: row.port,
        service: row.service,
        retries: row.retries,
        rate: history.rate(`requests|${key}`),
        total: sum(Object.values(row.statuses)),
        classes: classesOf(row.statuses),
        median: quantile(buckets, status.durations_us, 0.5),
        tail: quantile(buckets, status.durations_us, 0.95),
        errors: byCode(errors),
      }
    }),
}

const ERRORS = {
  id: "errors",
  title: "Errors by code",
  note: "What the broker itself answered, since the start, and whether the service can have seen the request.",
  key: (row) => row.code,
  sort: { by: 2, down: true },
  columns: [
    text("Code", (row) => row.code),
    number("Per second", (row) => row.rate, rate),
    number("All", (row) => row.count),
    number("Never sent", (row) => row.never),
    number("Maybe sent", (row) => row.maybe),
    number("Sent", (row) => row.sent),
  ],
  rows: (status, history) => errorsOf(status).map((each) => ({ ...each, rate: history.rate(`error|${each.code}`) })),
}

const FAILURES = {
  id: "failures",
  title: "Last failures",
  first: matchMedia("(max-width: 760px)").matches ? 3 : 8,
  key: (row) => `${row.time}|${row.request_id}|${row.port}`,
  sort: { by: 0, down: true },
  columns: [
    { title: "When", get: (row) => row.time, show: (row) => clock(row.time) },
    text("Hop", (row) => row.hop, { hint: "Where it went wrong" }),
    text("Code", (row) => row.code, { short: true }),
    text("Reason", (row) => row.reason, { wide: true }),
    { title: "Answer", get: (row) => row.status, show: (row) => (row.status ? String(row.status) : "cut") },
    text("Delivery", (row) => row.delivery, { short: true, hint: "Whether the service can have seen the request" }),
    text("Request", (row) => [row.method, `${row.host}${row.target}`].filter(Boolean).join(" "), { wide: true }),
    text("Client", (row) => [row.client, row.user].filter(Boolean).join(", ")),
    text("Way", (row) => [row.port, row.service, row.tunnel].filter(Boolean).join(" → "), { wide: true, hint: "Port, service, and the tunnel that it took last" }),
    number("Tries", (row) => row.tries),
    number("Took", (row) => row.total_s, span),
    { title: "Request id", get: (row) => row.request_id, kind: "id" },
  ],
  rows: (status) => status.last_failures,
}

const USERS = {
  id: "users",
  title: "Users",
  key: (row) => row.name,
  columns: [
    text("Name", (row) => row.name),
    text("Proven by", (row) =>
      [
        [row.tokens, "token"],
        [row.certificates, "certificate"],
        [row.passwords, "password"],
      ]
        .filter(([number]) => number)
        .map(([number, word]) => plural(number, word))
        .join(", "),
    ),
    number("Tunnels", (row) => row.tunnels),
    number("At most", (row) => row.max_tunnels),
    number("Streams at most", (row) => row.max_streams),
    list("May offer", (row) => row.may, { wide: true }),
    text("Admin port", (row) => (row.admin === "none" ? "" : row.admin)),
  ],
  rows: (status) => status.users,
}

const CERTIFICATES = {
  id: "certificates",
  title: "Certificates",
  key: (row) => `${row.kind}|${row.at}|${row.file}`,
  sort: { by: 3 },
  columns: [
    text("Used at", (row) => row.at),
    text("Kind", (row) => row.kind),
    text("File", (row) => row.file, { wide: true }),
    number("Days left", (row) => row.days_left, (days) => String(Math.floor(days))),
    { title: "Expires", get: (row) => row.not_after, show: (row) => moment(row.not_after) },
  ],
  rows: (status) => status.certificates,
}

const WORKERS = {
  id: "workers",
  title: "Workers",
  key: (row) => String(row.index),
  columns: [
    number("No.", (row) => row.index, count, { named: true }),
    number("Process", (row) => row.pid, String),
    pill("State", (row) => ({ tone: row.state === "up" ? "good" : "bad", text: row.state })),
    number("Up for", (row) => row.uptime_s, span),
    number("Replaced", (row) => row.restarts),
  ],
  rows: (status) => status.workers,
}

export const SECTIONS = [
  FAILURES,
  SERVICES,
  UPSTREAMS,
  REQUESTS,
  ERRORS,
  EXTERNAL,
  CONNECT,
  TUNNELS,
  AGENTS,
  REGISTRATION,
  USERS,
  CERTIFICATES,
  WORKERS,
]
