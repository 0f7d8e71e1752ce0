// From the status document to what the page shows: counters for rates, what needs attention, and the figures.

import { byCode, bytes, plural, span, sum } from "./format.js"

const SOON_DAYS = 30
const NEARLY_FULL = 0.9

export function serviceKey(service) {
  return `${service.at ?? ""}|${service.registration ?? ""}|${service.service}`
}

export function agentKey(agent) {
  return `${agent.at}|${agent.user ?? ""}|${agent.agent}`
}

export function requestKey(row) {
  return `${row.port}|${row.service}`
}

/** Every counter that has a rate, by name. */
export function countersOf(status) {
  const found = new Map([["cpu", status.process.cpu_s]])
  const total = { exchanges: 0, failures: 0, errors: 0, bytes_in: 0, bytes_out: 0 }
  for (const port of frontOf(status)) {
    total.exchanges += port.exchanges
    total.failures += sum(Object.values(port.failures))
    total.errors += port.statuses?.[5] ?? 0
    total.bytes_in += port.bytes_in ?? 0
    total.bytes_out += port.bytes_out ?? 0
  }
  for (const [name, value] of Object.entries(total)) found.set(name, value)
  for (const port of status.external) {
    for (const name of ["exchanges", "bytes_in", "bytes_out"]) found.set(`port|${port.name}|${name}`, port[name])
  }
  for (const service of status.services) found.set(`service|${serviceKey(service)}`, service.exchanges)
  for (const row of status.requests) {
    found.set(`requests|${requestKey(row)}`, sum(Object.values(row.statuses)))
    found.set(`buckets|${requestKey(row)}`, row.durations.total?.buckets ?? [])
  }
  for (const each of errorsOf(status)) found.set(`error|${each.code}`, each.count)
  return found
}

/** Where requests come in: external ports, or at an agent its services. */
function frontOf(status) {
  return status.external.length ? status.external : status.services
}

/** Failures of all requests, by code: {code, count, never, maybe, sent}. */
export function errorsOf(status) {
  const found = new Map()
  for (const row of status.requests) {
    for (const [code, facts] of Object.entries(row.failures)) {
      const entry = found.get(code) ?? { code, count: 0, never: 0, maybe: 0, sent: 0 }
      entry.never += facts["never-sent"] ?? 0
      entry.maybe += facts["maybe-sent"] ?? 0
      entry.sent += facts.sent ?? 0
      entry.count = entry.never + entry.maybe + entry.sent
      found.set(code, entry)
    }
  }
  return [...found.values()]
}

/** Requests by the first digit of their status: ["2xx", ...], and "cut". */
export function classesOf(statuses) {
  const found = { "1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0, cut: 0 }
  for (const [status, number] of Object.entries(statuses)) found[/^[1-5]/.test(status) ? `${status[0]}xx` : "cut"] += number
  return found
}

export function healthOf(service) {
  if (service.registration !== null) {
    return service.tunnels ? { tone: "good", text: plural(service.tunnels, "tunnel") } : { tone: "bad", text: "no agent" }
  }
  if (service.problem) return { tone: "warn", text: service.problem }
  const bad = service.backends.filter((each) => !each.healthy || each.ejected).length
  if (!service.backends.length) return { tone: "warn", text: "no address yet" }
  if (!bad) return { tone: "good", text: "up" }
  return bad === service.backends.length ? { tone: "bad", text: "down" } : { tone: "warn", text: `${bad} of ${service.backends.length} down` }
}

export function backendState(backend) {
  if (!backend.healthy) return { tone: "bad", text: "down" }
  return backend.ejected ? { tone: "warn", text: "left out" } : { tone: "good", text: "up" }
}

// --- what needs attention ---------------------------------------------------------------

/** {tone: "bad" or "warn", text, target: id of the section that has more}, the worst first. */
export function attentionOf(status, history) {
  const all = [...ofNode(status), ...ofAgents(status), ...ofServices(status), ...ofLimits(status), ...ofFailures(status, history)]
  const found = [...new Map(all.map((each) => [each.text, each])).values()]
  return found.sort((one, other) => (one.tone === "bad" ? 0 : 1) - (other.tone === "bad" ? 0 : 1))
}

function* ofNode(status) {
  for (const reason of status.reasons) yield { tone: "bad", text: `Not ready: ${reason}.` }
  for (const worker of status.workers) {
    if (worker.state !== "up") yield { tone: "bad", text: `Worker ${worker.index} is ${worker.state}.`, target: "workers" }
  }
  if (status.access_log?.problem) yield { tone: "warn", text: `The access log can't be written: ${status.access_log.problem}.` }
  if (status.tracing?.problem) yield { tone: "warn", text: `Spans can't be sent: ${status.tracing.problem}.` }
  for (const each of status.certificates) {
    const what = `The ${each.kind} ${each.file} (${each.at})`
    if (each.days_left < 0) yield { tone: "bad", text: `${what} has expired.`, target: "certificates" }
    else if (each.days_left < SOON_DAYS) {
      yield { tone: "warn", text: `${what} expires in ${span(each.days_left * 86_400)}.`, target: "certificates" }
    }
  }
}

function* ofAgents(status) {
  for (const each of status.connect) {
    const down = each.tunnels.filter((tunnel) => tunnel.state !== "up")
    if (down.length) {
      const reason = down.find((tunnel) => tunnel.reason)?.reason
      const up = each.tunnels.length - down.length
      const text = `${each.url}: ${up} of ${plural(each.tunnels.length, "tunnel")} up${reason ? `: ${reason}` : ""}.`
      yield { tone: up ? "warn" : "bad", text, target: "connect" }
    }
    for (const refused of each.refused) {
      yield { tone: "bad", text: `${each.url} refuses the service ${refused.service}: ${refused.reason}.`, target: "connect" }
    }
  }
  for (const port of status.registration) {
    if (port.punished) {
      yield { tone: "warn", text: `${port.name}: ${plural(port.punished, "network")} refused for failed logins.`, target: "registration" }
    }
  }
  if (status.registration.length && !status.tunnels.length) {
    yield { tone: "warn", text: "No agent is registered.", target: "registration" }
  }
  for (const tunnel of status.tunnels) {
    for (const service of tunnel.registration === null ? [] : tunnel.services_refused) {
      yield { tone: "warn", text: `The agent ${tunnel.agent} (${tunnel.user}) may not offer ${service}.`, target: "tunnels" }
    }
  }
}

function* ofServices(status) {
  for (const service of status.services) {
    if (service.registration !== null && !service.tunnels) {
      const waiting = service.waiting ? `; ${plural(service.waiting, "request waits", "requests wait")}` : ""
      yield { tone: "bad", text: `${service.service}: no agent offers it now${waiting}.`, target: "services" }
    }
    if (service.problem) yield { tone: "warn", text: `${service.service}: ${service.problem}.`, target: "services" }
    for (const backend of service.backends) {
      const { tone, text } = backendState(backend)
      if (tone === "good") continue
      const only = service.backends.length === 1
      const reason = backend.problem ? `: ${backend.problem}` : ""
      yield { tone: only ? "bad" : "warn", text: `${service.service}: ${backend.address} is ${text}${reason}.`, target: "upstreams" }
    }
  }
}

function* ofLimits(status) {
  const { memory, process } = status
  if (memory.buffer_bytes > NEARLY_FULL * memory.limit_bytes) {
    yield { tone: "bad", text: `Buffers use ${bytes(memory.buffer_bytes)} of ${bytes(memory.limit_bytes)} (limits.memory).` }
  }
  if (process.descriptors > NEARLY_FULL * process.descriptor_limit * status.processes) {
    yield { tone: "bad", text: `${process.descriptors} descriptors are open; a process may have ${process.descriptor_limit}.` }
  }
  for (const port of status.external) {
    if (port.paused) yield { tone: "bad", text: `${port.name} accepts nobody: descriptors have run out.`, target: "external" }
  }
}

function* ofFailures(status, history) {
  const recent = Object.fromEntries(errorsOf(status).map(({ code }) => [code, history.growth(`error|${code}`) ?? 0]))
  const failed = sum(Object.values(recent))
  if (failed) {
    yield { tone: "warn", text: `${plural(failed, "request")} failed in the last ${span(history.seconds)}: ${byCode(recent)}.`, target: "failures" }
  }
}

// --- figures ------------------------------------------------------------------------------

/** {name, value, unit, note, curve, tone}: what the tiles show. */
export function figuresOf(status, history) {
  const wanted = sum(status.connect.map((each) => each.tunnels.length))
  const requests = history.rate("exchanges")
  const failures = history.rate("failures")
  const moved = add(history.rate("bytes_in"), history.rate("bytes_out"))
  const cpu = history.rate("cpu")
  const { memory } = status
  const front = frontOf(status)
  return [
    { name: "Requests", rate: requests, note: `${sum(front.map((each) => each.active ?? 0))} under way`, curve: history.curve("exchanges", requests) },
    {
      name: "Failures",
      rate: failures,
      note: byCode(totalFailures(front)) || "none since the start",
      curve: history.curve("failures", failures),
      tone: failures ? "bad" : undefined,
    },
    {
      name: "Throughput",
      bytes: moved,
      note: `${bytes(history.rate("bytes_in"))}/s in, ${bytes(history.rate("bytes_out"))}/s out`,
      curve: history.curve("bytes", moved),
    },
    {
      name: "Tunnels",
      count: status.tunnels.length,
      note: wanted ? `of ${wanted} wanted` : plural(new Set(status.tunnels.map((each) => `${each.user}|${each.agent}`)).size, "agent"),
      curve: history.curve("tunnels", status.tunnels.length),
    },
    {
      name: "Client connections",
      count: sum(status.external.map((each) => each.connections)),
      note: `${plural(sum(status.tunnels.map((each) => each.streams)), "stream")} in tunnels`,
      curve: history.curve("connections", sum(status.external.map((each) => each.connections))),
      skip: !status.external.length,
    },
    {
      name: "Processor",
      percent: cpu,
      note: plural(Math.max(status.workers.length, 1), "process that serves", "processes that serve"),
      curve: history.curve("cpu", cpu),
    },
    {
      name: "Memory",
      size: memory.resident_bytes,
      note: `buffers ${bytes(memory.buffer_bytes)} of ${bytes(memory.limit_bytes)}`,
      curve: history.curve("memory", memory.resident_bytes),
    },
  ].filter((each) => !each.skip)
}

function totalFailures(front) {
  const total = {}
  for (const each of front) {
    for (const [code, number] of Object.entries(each.failures)) total[code] = (total[code] ?? 0) + number
  }
  return total
}

function add(one, other) {
  return one === null || other === null ? null : one + other
}
