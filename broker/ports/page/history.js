// What counters were a while ago, and so how fast they grow.

const WINDOW_S = 12 // rates are of about so long
const POINTS = 60 // of a curve

/** Counters by name, sampled with each status. They start anew with another process. */
export class History {
  #samples = [] // {time, values: Map}, the oldest first
  #curves = new Map()
  #process = ""

  /** `values`: name -> number. */
  add(time, process, values) {
    const last = this.#samples.at(-1)
    if (process !== this.#process || (last && time <= last.time)) {
      this.#samples = []
      this.#curves.clear()
      this.#process = process
    }
    this.#samples.push({ time, values })
    while (this.#samples.length > 2 && time - this.#samples[1].time >= WINDOW_S) this.#samples.shift()
  }

  get seconds() {
    return this.#samples.length < 2 ? 0 : this.#samples.at(-1).time - this.#samples[0].time
  }

  /** How much it grew in the window; null: not known yet. A counter that is new began at 0. */
  growth(name) {
    if (!this.seconds) return null
    const now = this.#samples.at(-1).values.get(name) ?? 0
    const then = this.#samples[0].values.get(name) ?? 0
    return now < then ? null : now - then
  }

  /** Per second. */
  rate(name) {
    const growth = this.growth(name)
    return growth === null ? null : growth / this.seconds
  }

  /** The same of a list of counters: how much each grew. */
  growths(name) {
    if (!this.seconds) return null
    const now = this.#samples.at(-1).values.get(name)
    const then = this.#samples[0].values.get(name)
    return now && now.map((value, index) => value - (then?.[index] ?? 0))
  }

  /** Remember one more point of a curve, and get all that there are. */
  curve(name, value) {
    const points = this.#curves.get(name) ?? []
    if (value !== null) points.push(value)
    if (points.length > POINTS) points.shift()
    this.#curves.set(name, points)
    return points
  }
}

/** The value below which a share of what was counted lies, in seconds. Buckets have upper bounds in µs, the last none. */
export function quantile(buckets, boundsUs, share) {
  let total = 0
  for (const count of buckets ?? []) total += count
  if (!total) return null
  let wanted = total * share
  for (let index = 0; index < buckets.length; index++) {
    if (buckets[index] && wanted <= buckets[index]) {
      const low = index ? boundsUs[index - 1] : 0
      const high = boundsUs[index] ?? low
      return (low + ((high - low) * wanted) / buckets[index]) / 1e6
    }
    wanted -= buckets[index]
  }
  return null
}
