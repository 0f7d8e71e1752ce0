"""The clocks of a client's exchange. See deadlines.pxd."""

cimport cython
from _fastpath.end cimport CODE_REQUEST_TIMEOUT, CODE_UPSTREAM_TIMEOUT, MAYBE_SENT, SENT
from _fastpath.pace cimport pace_start, pace_stop, pace_too_slow
from _fastpath.request cimport CLIENT_RUNNING


@cython.no_gc
cdef class TimedExchange(ResponseWriter):
    """A client connection with the clocks of its exchange. Only compiled subclasses are useful."""

    cdef uint64_t patience(self) noexcept:
        return self.settings.upgraded_timeout if self.upgraded else self.settings.idle_timeout

    cdef void watch(self, uint64_t delay_ms) noexcept:
        self.idle_ms = self.reactor.now_ms + delay_ms if delay_ms else 0
        self.arm_next()

    cdef void arm_next(self) noexcept:
        cdef uint64_t now = self.reactor.now_ms
        cdef uint64_t first = self.idle_ms
        if self.total_deadline_ms and (first == 0 or self.total_deadline_ms < first):
            first = self.total_deadline_ms
        if self.pace.due_ms and (first == 0 or self.pace.due_ms < first):
            first = self.pace.due_ms
        self.reactor.arm(self, 0 if first == 0 else first - now if first > now else 1)

    # --- what moves ---------------------------------------------------------

    cdef void body_moved(self) noexcept:
        # After an early answer the request may take its time: nobody waits for it.
        if self.pace.due_ms == 0 and self.settings.min_rate and not self.reply_begun:
            pace_start(&self.pace, self.reactor.now_ms, self.settings.slow_timeout, self.request_seen)
        self.watch(self.patience())

    cdef void sent_some(self) noexcept:
        if self.upgraded:
            self.watch(self.patience())
        elif self.out.size == 0:
            pace_stop(&self.pace)
            self.watch(0)         # it has read all that there is
        else:
            if self.pace.due_ms == 0 and self.settings.min_rate:
                pace_start(&self.pace, self.reactor.now_ms, self.settings.slow_timeout, self.acknowledged())
            self.read_mark = self.acknowledged()
            self.watch(self.settings.idle_timeout)

    cdef bint still_reads(self) noexcept:
        cdef uint64_t taken = self.acknowledged()
        if self.out.size == 0 or taken == self.read_mark:
            return False
        self.read_mark = taken
        self.reactor.arm(self, self.settings.idle_timeout)
        return True

    cdef void on_blocked(self) noexcept:
        if self.state == CLIENT_RUNNING and self.reply_begun and self.idle_ms == 0:
            self.sent_some()

    # --- what does not --------------------------------------------------------

    cdef void expired(self) noexcept:
        cdef uint64_t now = self.reactor.now_ms
        if self.total_deadline_ms and now >= self.total_deadline_ms:
            self.fail(CODE_UPSTREAM_TIMEOUT, MAYBE_SENT)
        elif self.pace.due_ms and now >= self.pace.due_ms:
            self.judge_pace()
        elif self.idle_ms and now >= self.idle_ms:
            self.judge_silence()
        else:
            self.arm_next()

    cdef void judge_pace(self) noexcept:
        cdef uint64_t moved = self.acknowledged() if self.reply_begun else self.request_seen
        cdef bint held_up = not self.reply_begun and self.peer is not None and self.peer.room() == 0
        if not pace_too_slow(&self.pace, self.reactor.now_ms, self.settings.slow_timeout, self.settings.min_rate, moved,
                             held_up):
            self.arm_next()
        elif self.reply_begun:
            self.cut()
        else:
            self.fail(CODE_REQUEST_TIMEOUT, MAYBE_SENT)

    cdef void judge_silence(self) noexcept:
        if self.upgraded:
            self.cut()
        elif not self.request_done:
            # Who has stalled: the client with its body, or the one that it goes to?
            if self.peer is not None and self.peer.room() == 0:
                self.fail(CODE_UPSTREAM_TIMEOUT, MAYBE_SENT)
            else:
                self.fail(CODE_REQUEST_TIMEOUT, MAYBE_SENT)
        elif not self.reply_begun:
            self.fail(CODE_UPSTREAM_TIMEOUT, SENT)
        elif self.out.size > 0 and self.acknowledged() == self.read_mark:
            self.cut()            # the reader has stalled
        else:
            self.sent_some()
