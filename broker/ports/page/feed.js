// Asks the node how it is, again and again, and says what came of it.

const INTERVAL_MS = 2000
const TIMEOUT_MS = 10_000
const RETRIES_MS = [1000, 2000, 4000, 8000]
// A node that takes long to say how it is, having thousands of agents, is asked less often.
const SHARE = 15

/** What the node answered, where that was no status. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `The node answered ${status}.`)
    this.status = status
    this.accepts = problem.accepts ?? []
  }
}

/** `on` has: status(document), refused(Refused), lost(sentence, milliseconds until the next try). */
export class Feed {
  #on
  #token = "" // in memory only
  #timer = 0
  #failures = 0
  #running = false
  #held = new Set()
  interval_s = INTERVAL_MS / 1000

  constructor(on) {
    this.#on = on
    document.addEventListener("visibilitychange", () => this.hold("hidden", document.hidden))
  }

  get signedIn() {
    return this.#token !== ""
  }

  signIn(token) {
    this.#token = token
    this.#held.delete("refused")
    this.askNow()
  }

  signOut() {
    this.#token = ""
    this.askNow()
  }

  /** Stop asking for a reason, or go on where it was the last one. */
  hold(reason, isHeld) {
    if (isHeld) this.#held.add(reason)
    else this.#held.delete(reason)
    if (!isHeld) this.askNow()
  }

  askNow() {
    clearTimeout(this.#timer)
    this.#ask()
  }

  async #ask() {
    if (this.#running || this.#held.size) return
    this.#running = true
    const started = performance.now()
    let wait = INTERVAL_MS
    try {
      const status = await this.#fetch()
      this.#failures = 0
      this.#on.status(status)
      wait = Math.max(wait, SHARE * (performance.now() - started))
      this.interval_s = wait / 1000
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        this.#held.add("refused")
        this.#token = ""
        this.#on.refused(error)
      } else {
        wait = RETRIES_MS[Math.min(this.#failures, RETRIES_MS.length - 1)]
        this.#failures++
        this.#on.lost(reasonOf(error), wait)
      }
    }
    this.#running = false
    this.#timer = setTimeout(() => this.#ask(), wait)
  }

  async #fetch() {
    const headers = { Accept: "application/json" }
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`
    const answer = await fetch("status", {
      headers,
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    if (answer.ok) return await answer.json()
    throw new Refused(answer.status, await answer.json().catch(() => ({})))
  }
}

function reasonOf(error) {
  if (error instanceof Refused) return error.message
  if (error.name === "TimeoutError") return `no answer within ${TIMEOUT_MS / 1000} s`
  if (error instanceof SyntaxError) return "its answer is not what this page understands"
  return "it can't be reached"
}
