// The page: asks for the status, shows it, and says when it is old.

import { NONE, byteRate, bytes, clock, count, plural, rate, span } from "./format.js"
import { Feed } from "./feed.js"
import { History } from "./history.js"
import { attentionOf, countersOf, figuresOf } from "./model.js"
import { SECTIONS } from "./sections.js"
import { Table, element, say } from "./table.js"

const LATE_S = 5 // beyond when an answer was to be expected
const SHOWN_ISSUES = 8
const SVG = "http://www.w3.org/2000/svg"

const at = (id) => document.getElementById(id)
const history = new History()
const tables = SECTIONS.map((section) => ({ section, table: new Table(section) }))
const tiles = new Map()
const links = new Map()

let last = null // the status that is shown
let seen = 0 // when it came
let resumed = 0 // when this page was looked at again
let trouble = null // {reason, until}: since it was asked last
let paused = false

const feed = new Feed({ status: show, refused: askForToken, lost })

// --- what came -----------------------------------------------------------------------------

function show(status) {
  history.add(status.time, `${status.pid} ${status.process.started}`, countersOf(status))
  const before = last
  last = status
  seen = performance.now()
  trouble = null
  at("signin").hidden = true
  at("main").hidden = false
  at("signout").hidden = !feed.signedIn
  at("pause").hidden = false
  showHead(status)
  showAttention(attentionOf(status, history))
  showFigures(figuresOf(status, history))
  for (const { section, table } of tables) {
    table.update(section.rows(status, history))
    showLink(table)
  }
  if (!before) goToFragment()
  if (before && before.ready !== status.ready) announce(status.ready ? "The node is ready." : `The node is not ready: ${status.reasons.join("; ")}.`)
  tick()
}

function lost(reason, wait) {
  if (!trouble && last) announce("The node does not answer; what is shown gets old.")
  trouble = { reason, until: performance.now() + wait }
  tick()
}

function askForToken(refused) {
  const wantsToken = refused.status === 403 || refused.accepts.includes("token")
  at("main").hidden = true
  at("signin").hidden = false
  at("signout").hidden = true
  at("pause").hidden = true
  at("signin-token").hidden = !wantsToken
  say(at("signin-why"), refused.message)
  pill(at("state"), "idle", "signed out")
  if (wantsToken) at("token").focus()
  trouble = null
  last = null
  tick()
}

// --- its parts ------------------------------------------------------------------------------

function showHead(status) {
  const draining = status.state !== "serving"
  pill(at("state"), draining ? "warn" : status.ready ? "good" : "bad", draining ? status.state : status.ready ? "ready" : "not ready")
  say(at("node"), status.node)
  const title = `${status.ready && !draining ? "" : "⚠ "}${status.node} · broker`
  if (document.title !== title) document.title = title
  const kind = [status.registration.length && "DMZ node", status.connect.length && "agent"].filter(Boolean).join(" and ") || "node"
  const facts = [
    kind,
    `version ${status.version}`,
    `up for ${span(status.uptime_s)}`,
    `process ${status.pid}`,
    status.workers.length ? plural(status.workers.length, "worker") : "",
    status.source ?? "configured on the command line",
    `${plural(status.reloads.ok, "reload")}${status.reloads.failed ? `, ${status.reloads.failed} failed` : ""}`,
  ]
  say(at("facts"), facts.filter(Boolean).join(" · "))
}

function pill(place, tone, text) {
  if (place.dataset.tone !== tone) place.dataset.tone = tone
  say(place, text)
}

function showAttention(issues) {
  const shown = issues.slice(0, SHOWN_ISSUES)
  const rest = issues.slice(SHOWN_ISSUES)
  fill(at("attention-list"), shown.length ? shown : [{ tone: "good", text: "Nothing." }])
  const more = at("attention-more")
  more.hidden = !rest.length
  say(more.firstElementChild, `${count(rest.length)} more`)
  fill(more.lastElementChild, rest.slice(0, 200))
}

function fill(list, issues) {
  while (list.children.length > issues.length) list.lastElementChild.remove()
  issues.forEach((issue, index) => {
    const item = list.children[index] ?? list.appendChild(element("li", {}, element("span"), element("a")))
    item.dataset.tone = issue.tone
    const [words, link] = item.children
    say(words, issue.text)
    link.hidden = !issue.target
    if (issue.target) {
      link.setAttribute("href", `#${issue.target}`)
      link.setAttribute("aria-label", `More in ${at(`${issue.target}-title`)?.textContent ?? issue.target}`)
      say(link, "more")
    }
  })
}

function showFigures(figures) {
  for (const [name, tile] of tiles) {
    const there = figures.some((each) => each.name === name)
    tile.box.hidden = !there
  }
  for (const figure of figures) {
    const tile = tiles.get(figure.name) ?? makeTile(figure.name)
    say(tile.value, valueOf(figure))
    say(tile.note, figure.note ?? "")
    if (figure.tone) tile.box.dataset.tone = figure.tone
    else delete tile.box.dataset.tone
    drawCurve(tile.line, figure.curve)
  }
}

function valueOf(figure) {
  if ("rate" in figure) return figure.rate === null ? NONE : `${rate(figure.rate)}/s`
  if ("bytes" in figure) return byteRate(figure.bytes === null ? null : figure.bytes)
  if ("percent" in figure) return figure.percent === null ? NONE : `${Math.round(figure.percent * 100)} %`
  if ("size" in figure) return bytes(figure.size)
  return count(figure.count)
}

function makeTile(name) {
  const value = element("dd", { class: "value" })
  const note = element("dd", { class: "note" })
  const curve = document.createElementNS(SVG, "svg")
  const line = document.createElementNS(SVG, "polyline")
  for (const [key, text] of [["viewBox", "0 0 120 24"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"], ["class", "curve"]]) {
    curve.setAttribute(key, text)
  }
  curve.append(line)
  const box = element("div", { class: "tile" }, element("dt", {}, name), value, note)
  box.append(element("dd", { class: "curve-box", "aria-hidden": "true" }, curve))
  at("tiles").append(box)
  const tile = { box, value, note, line }
  tiles.set(name, tile)
  return tile
}

function drawCurve(line, points) {
  const top = Math.max(...points, 1e-9)
  const step = 120 / 59
  const start = 120 - (points.length - 1) * step
  line.setAttribute("points", points.map((value, index) => `${(start + index * step).toFixed(1)},${(22.5 - (21 * value) / top).toFixed(1)}`).join(" "))
}

function showLink(table) {
  let link = links.get(table.id)
  if (!link) {
    link = element("li", {}, element("a", { href: `#${table.id}` }, table.title, " ", element("span", { class: "count" })))
    at("nav").append(link)
    links.set(table.id, link)
  }
  link.hidden = !table.size
  say(link.querySelector(".count"), count(table.size))
}

// --- time passes ------------------------------------------------------------------------------

function tick() {
  const fresh = at("fresh")
  const banner = at("stale")
  if (!last) {
    pill(fresh, trouble ? "bad" : "idle", trouble ? "no answer" : at("signin").hidden ? "no answer yet" : "signed out")
    banner.hidden = !trouble
    if (trouble) say(banner, `The node does not answer: ${trouble.reason}. ${nextTry()}`)
    return
  }
  const age = (performance.now() - seen) / 1000
  const silent = (performance.now() - Math.max(seen, resumed)) / 1000
  const old = Boolean(trouble) || (!paused && !document.hidden && silent > LATE_S + feed.interval_s)
  document.body.classList.toggle("old", old)
  banner.hidden = !old
  if (paused) pill(fresh, "warn", `paused at ${clock(last.time)}`)
  else if (old) pill(fresh, "bad", `stale: ${span(age)} old`)
  else pill(fresh, "good", "live")
  if (old) {
    pill(at("state"), "bad", "no answer")
    say(banner, `No answer from the node for ${span(age)}${trouble ? `: ${trouble.reason}` : ""}. What is shown is from ${clock(last.time)}. ${nextTry()}`)
  }
}

function nextTry() {
  if (!trouble) return ""
  const left = Math.ceil((trouble.until - performance.now()) / 1000)
  return left > 0 ? `Next try in ${left} s.` : "Trying again now."
}

function announce(sentence) {
  say(at("announce"), sentence)
}

/** A link to a section that was not there yet. */
function goToFragment() {
  const id = location.hash.slice(1)
  if (id && tables.some(({ table }) => table.id === id)) at(id).scrollIntoView()
}

// --- begin ------------------------------------------------------------------------------------

for (const { table } of tables) at("tables").append(table.section)

at("pause").addEventListener("click", () => {
  paused = !paused
  at("pause").setAttribute("aria-pressed", String(paused))
  say(at("pause"), paused ? "Go on" : "Pause")
  feed.hold("paused", paused)
  tick()
})

at("signin").addEventListener("submit", (event) => {
  event.preventDefault()
  const field = at("token")
  feed.signIn(field.value.trim())
  field.value = ""
})

at("signout").addEventListener("click", () => feed.signOut())

document.addEventListener("visibilitychange", () => {
  resumed = performance.now()
})

setInterval(tick, 1000)
feed.askNow()
