// Tables that can be sorted, filtered and updated in place. All data goes in as text, never as markup.

import { NONE, count, plural } from "./format.js"

const FIRST_ROWS = 50
const MORE_ROWS = 200
const FILTER_FROM = 8 // rows: below that a filter is in the way
const LIST_MAX = 200

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" })

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value)
  }
  made.append(...children)
  return made
}

/** Without touching what stays: a reader's selection, and what a screen reader says. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text
}

/**
 * Columns: {title, get(row)} and, where they differ, show(row) -> text; kind: "number", "pill" (show gives
 * {tone, text}) or "list" (get gives texts) or "id" (to be copied); hint: what the title means; wide: long text that may break; short: one that must not; named: 0 is a name.
 */
export class Table {
  #columns
  #key
  #rows = []
  #shown = new Map() // key -> <tr>
  #first
  #limit
  #sort
  #parts

  constructor({ id, title, note, columns, key, sort, first = FIRST_ROWS }) {
    this.id = id
    this.title = title
    this.#columns = columns
    this.#key = key
    this.#first = this.#limit = first
    this.#sort = { column: sort?.by ?? 0, down: sort?.down ?? false }
    this.#build(note)
  }

  get section() {
    return this.#parts.section
  }

  get size() {
    return this.#rows.length
  }

  update(rows) {
    this.#rows = rows
    this.#parts.section.hidden = !rows.length
    this.#render()
  }

  // --- making it ----------------------------------------------------------------------

  #build(note) {
    const heading = element("h2", { id: `${this.id}-title` }, this.title)
    const total = element("span", { class: "count" })
    const filter = element("input", { type: "search", placeholder: "Filter", "aria-label": `Filter ${this.title}`, spellcheck: "false" })
    const matches = element("span", { class: "note", role: "status" })
    filter.addEventListener("input", () => {
      this.#limit = this.#first
      this.#render()
    })
    const headings = this.#columns.map((column, index) => this.#heading(column, index))
    const body = element("tbody", { role: "rowgroup" })
    const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...headings))
    const table = element("table", { role: "table", "aria-labelledby": `${this.id}-title` }, head, body)
    const more = element("button", { type: "button", class: "more" })
    more.addEventListener("click", () => {
      this.#limit += MORE_ROWS
      this.#render()
    })
    const nothing = element("p", { class: "note" }, "Nothing fits the filter.")
    const bar = element("div", { class: "section-bar" }, heading, total, filter, matches)
    const section = element("section", { id: this.id, "aria-labelledby": `${this.id}-title` }, bar)
    if (note) section.append(element("p", { class: "note" }, note))
    section.append(element("div", { class: "table-wrap" }, table), nothing, more)
    this.#parts = { section, total, filter, matches, headings, body, more, nothing }
  }

  #heading(column, index) {
    const button = element("button", { type: "button", title: column.hint }, column.title)
    button.addEventListener("click", () => {
      const same = this.#sort.column === index
      // Numbers are looked at for the largest.
      this.#sort = { column: index, down: same ? !this.#sort.down : column.kind === "number" }
      this.#render()
    })
    return element("th", { role: "columnheader", scope: "col", class: column.kind === "number" ? "number" : undefined }, button)
  }

  // --- showing rows -------------------------------------------------------------------

  #render() {
    const focused = document.activeElement
    const rows = this.#sorted(this.#filtered())
    const visible = rows.slice(0, this.#limit)
    const { body, total, filter, matches, more, nothing, headings } = this.#parts
    headings.forEach((heading, index) => {
      const sorted = index === this.#sort.column
      heading.setAttribute("aria-sort", sorted ? (this.#sort.down ? "descending" : "ascending") : "none")
    })
    const wanted = new Map()
    let place = body.firstElementChild
    for (const row of visible) {
      let key = this.#key(row)
      while (wanted.has(key)) key += "'"
      const line = this.#shown.get(key) ?? this.#line()
      this.#fill(line, row)
      if (line === place) place = place.nextElementSibling
      else body.insertBefore(line, place)
      wanted.set(key, line)
    }
    for (const [key, line] of this.#shown) if (!wanted.has(key)) line.remove()
    this.#shown = wanted
    // A row that moved takes the focus with it.
    if (focused !== document.activeElement && focused?.isConnected && body.contains(focused)) focused.focus({ preventScroll: true })
    say(total, count(this.#rows.length))
    filter.hidden = this.#rows.length < FILTER_FROM && !filter.value
    say(matches, filter.value ? `${plural(rows.length, "match", "matches")}` : "")
    nothing.hidden = rows.length > 0
    more.hidden = rows.length <= visible.length
    if (!more.hidden) say(more, `Show ${Math.min(MORE_ROWS, rows.length - visible.length)} more of ${count(rows.length)}`)
  }

  #filtered() {
    const words = this.#parts.filter.value.toLowerCase().split(/\s+/).filter(Boolean)
    if (!words.length) return this.#rows
    return this.#rows.filter((row) => {
      const text = this.#columns.map((column) => textOf(column, row)).join(" ").toLowerCase()
      return words.every((word) => text.includes(word))
    })
  }

  #sorted(rows) {
    const { get } = this.#columns[this.#sort.column]
    const sign = this.#sort.down ? -1 : 1
    const keyed = rows.map((row, index) => ({ row, index, value: get(row) }))
    keyed.sort((one, other) => sign * compare(one.value, other.value) || one.index - other.index)
    return keyed.map((each) => each.row)
  }

  #line() {
    const cells = this.#columns.map((column) => {
      const classes = [["number", "id"].includes(column.kind) && column.kind, column.wide && "wide", column.short && "short"].filter(Boolean).join(" ")
      return element("td", { role: "cell", "data-label": column.title, class: classes || undefined })
    })
    return element("tr", { role: "row" }, ...cells)
  }

  #fill(line, row) {
    this.#columns.forEach((column, index) => {
      const cell = line.children[index]
      if (column.kind === "pill") fillPill(cell, column.show(row))
      else if (column.kind === "list") fillList(cell, column.get(row))
      else {
        const text = textOf(column, row)
        say(cell, text || NONE)
        cell.classList.toggle("zero", (text === "0" && !column.named) || !text || text === NONE)
      }
    })
  }
}

function textOf(column, row) {
  if (column.kind === "pill") return column.show(row).text
  if (column.kind === "list") return column.get(row).join(" ")
  const value = column.show ? column.show(row) : column.get(row)
  return value === null || value === undefined ? "" : String(value)
}

function compare(one, other) {
  if (typeof one === "number" || typeof other === "number") return (one ?? -Infinity) - (other ?? -Infinity) || 0
  const text = (value) => (Array.isArray(value) ? value.join(" ") : String(value ?? ""))
  return order.compare(text(one), text(other))
}

function fillPill(cell, { tone, text }) {
  const pill = cell.firstElementChild ?? cell.appendChild(element("span", { class: "pill" }))
  if (pill.dataset.tone !== tone) pill.dataset.tone = tone
  say(pill, text)
}

/** Two entries are shown, more behind a button that stays open over updates. */
function fillList(cell, texts) {
  if (texts.length <= 2) {
    say(cell, texts.join(", ") || NONE)
    cell.classList.toggle("zero", !texts.length)
    return
  }
  let details = cell.firstElementChild
  if (details?.tagName !== "DETAILS") {
    details = element("details", {}, element("summary"), element("ul"))
    details.addEventListener("toggle", () => fillOpen(details))
    cell.replaceChildren(details)
    cell.classList.remove("zero")
  }
  details.texts = texts
  say(details.firstElementChild, `${texts[0]} and ${count(texts.length - 1)} more`)
  fillOpen(details)
}

function fillOpen(details) {
  const list = details.lastElementChild
  const texts = details.open ? details.texts.slice(0, LIST_MAX) : []
  if (details.texts.length > LIST_MAX && details.open) texts.push(`and ${count(details.texts.length - LIST_MAX)} more`)
  while (list.children.length > texts.length) list.lastElementChild.remove()
  texts.forEach((text, index) => say(list.children[index] ?? list.appendChild(element("li")), text))
}
