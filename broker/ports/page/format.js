// Numbers and times as people read them. Every function gives a text; "–" where there is nothing.

export const NONE = "–"

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]

/** Bytes, in powers of 1024. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE
  let unit = 0
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit && value < 99.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`
}

export function byteRate(value) {
  return value ? `${bytes(value)}/s` : value === 0 ? "0" : NONE
}

/** A count: whole up to 99999, then 123k, 4.5M. */
export function count(value) {
  if (value === null || value === undefined) return NONE
  if (value < 100_000) return String(Math.round(value))
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) {
      const scaled = value / size
      return (scaled < 99.95 ? scaled.toFixed(1) : Math.round(scaled)) + unit
    }
  }
  return String(value)
}

/** Per second. */
export function rate(value) {
  if (value === null || value === undefined) return NONE
  if (value === 0) return "0"
  if (value < 0.05) return "<0.1"
  return value < 99.95 ? value.toFixed(1) : count(value)
}

/** Seconds, as in 340 µs, 12 ms, 1.5 s, 3 min. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return NONE
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/** Of a moment (seconds since 1970). */
export function clock(moment) {
  return new Date(moment * 1000).toLocaleTimeString([], { hour12: false })
}

export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { hour12: false, dateStyle: "medium", timeStyle: "medium" })
}

export function plural(number, word, many = `${word}s`) {
  return `${count(number)} ${number === 1 ? word : many}`
}

/** {code: number} as "12 no-agent, 3 overloaded", the most frequent first. */
export function byCode(counts) {
  const found = Object.entries(counts ?? {}).filter(([, number]) => number)
  found.sort((one, other) => other[1] - one[1])
  return found.map(([code, number]) => `${count(number)} ${code}`).join(", ")
}

export function sum(values) {
  let total = 0
  for (const value of values) total += value
  return total
}
