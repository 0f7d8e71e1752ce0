"""A client's HTTP/1.1 connection, the ingress of its exchanges. See client.pxd."""

from libc.string cimport memcpy, memset

cimport cython
from _fastpath.address cimport ADDRESS_SIZE, ADDRESS_TEXT, read_address, write_address
from _fastpath.answers cimport Answer, answer_for, with_date
from _fastpath.end cimport (
    CODE_BAD_REQUEST, CODE_BODY_TOO_LARGE, CODE_CANCEL, CODE_FORBIDDEN, CODE_INTERNAL, CODE_MOVED, CODE_NO_AGENT,
    CODE_NO_SERVICE, CODE_OVERLOADED, CODE_REFUSED, CODE_REQUEST_TIMEOUT, CODE_UNAUTHENTICATED, CODE_TUNNEL_LOST,
    CODE_UNREACHABLE, CODE_UPSTREAM_TIMEOUT, HEAD_END, MAYBE_SENT, NEVER_SENT, SENT, End, detach,
)
from _fastpath.deadlines cimport TimedExchange
from _fastpath.exchange cimport JOIN_WAIT, JOINED, Egress, Lobby, settle, tunnel_label
from _fastpath.gate cimport GATE_OPEN, GATE_WAIT, Caller, Gate
from _fastpath.http1 cimport (
    BODY_LENGTH, BODY_NONE, MAX_CANONICAL_HEAD, MAX_FIELDS, METHOD_HEAD, METHOD_OTHER, Field, Head, ScanLimits, scan_request,
)
from _fastpath.memory cimport chunk_bytes, memory_limit
from _fastpath.pace cimport pace_stop
from _fastpath.pool cimport Pool
from _fastpath.reactor cimport PyObject
from _fastpath.record cimport Journal, Record, since, text_of
from _fastpath.request cimport (
    CLIENT_HEAD, CLIENT_JOIN, CLIENT_LINGER, CLIENT_PROVING, CLIENT_RUNNING, CLIENT_WAITING, HELD_BODY,
)
from _fastpath.route cimport Target
from _fastpath.socket cimport OUT_LOW, uncork

cdef enum:
    SERVE_STEPS = 8               # reads or requests in one turn; the rest waits for the others
    DRAIN_GRACE_MS = 500          # for clients that are idle when their port stops
    LINGER_MS = 2000
    REST_MS = 2000                # a TLS client that is idle for so long gives its buffers back
    MAX_TRIES = 5
    MAX_UNREACHABLE = 3           # of those, tries that meet an upstream which can't be reached: each may take its time

# To a request that came in plain text where TLS is spoken: nothing of it was looked at.
cdef bytes plain_answer = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nBroker-Error: bad-request\r\n"
    b"Broker-Delivery: never-sent\r\nCache-Control: no-store\r\nContent-Length: 134\r\nConnection: close\r\n\r\n"
    b'{"type":"about:blank","title":"Bad Request","status":400,"code":"bad-request","detail":'
    b'"This port speaks TLS: use https:// instead."}\n'
)
cdef const char* PLAIN_ANSWER = plain_answer
cdef size_t PLAIN_SIZE = len(plain_answer)

cdef char claimant[ADDRESS_TEXT]          # of the record that is being written
cdef Field held_fields[MAX_FIELDS]
cdef ScanLimits held_limits       # a held head has met its limits before it was made canonical
held_limits.head = MAX_CANONICAL_HEAD
held_limits.headers = MAX_FIELDS
held_limits.uri = MAX_CANONICAL_HEAD


@cython.final
@cython.no_gc
cdef class Client(TimedExchange):
    """One HTTP/1.1 client connection."""

    # --- the connection ---------------------------------------------------

    cdef void accepted(self) noexcept:
        self.readable = self.writable = self.fresh = True
        self.shaking = self.listener.tls is not None
        self.reactor.arm(
            self, self.settings.head_timeout if self.shaking or self.greeting else self.settings.idle_timeout
        )
        self.reactor.queue_ready(self)

    cdef void refuse(self, uint16_t code) noexcept:
        self.readable = self.writable = True
        if self.listener.tls is not None or self.greeting:
            self.turn_away(code)  # whoever expects TLS would not understand, whoever is a proxy not pass it on
        else:
            self.answer(code, NEVER_SENT)

    cdef void turn_away(self, uint16_t code) noexcept:
        self.failure = code
        self.in_flight = True
        self.listener.tally.exchanges += 1
        self.listener.tally.active += 1
        self.reset_hard()

    cdef void spoke_plain(self) noexcept:
        self.write(PLAIN_ANSWER, PLAIN_SIZE)
        self.linger()

    cdef void spoke_tls(self) noexcept:
        # There is no answer that it would understand.
        self.listener.tally.failures[<int>CODE_BAD_REQUEST] += 1
        self.linger()

    cdef void drain(self) noexcept:
        if self.state == CLIENT_HEAD and self.stash_size == 0:
            self.await_last_request()
        elif self.upgraded:
            self.on_parting()

    cdef void on_ready(self) noexcept:
        cdef int steps = SERVE_STEPS
        if self.greeting and not self.broken:
            if self.greet() and not self.shaking:
                self.reactor.arm(self, self.settings.idle_timeout)
            elif self.fd < 0 or (self.greeting and not self.broken):
                return
        if self.shaking and not self.broken:
            if self.out.size > 0 and self.writable:
                self.flush()
            if self.shake():
                self.await_request()
                self.look_at_certificate()
            elif self.shaking and not self.broken:
                return
        if self.broken and (not self.upgraded or self.request_done):
            self.gone()           # else a read finds out, behind the last bytes
            return
        while self.fd >= 0 and self.serve():
            steps -= 1
            if steps == 0:
                self.reactor.queue_ready(self)
                break
        if self.fd >= 0 and self.out.size > 0 and self.writable:
            self.flush()

    cdef void look_at_certificate(self) noexcept:
        if self.listener.certify is None:
            return
        try:
            self.certificate = self.listener.certify(self.tls.connection)
        except Exception:
            self.certificate = None       # then nothing is proven

    cdef bint serve(self) noexcept:
        # One step; True where another may follow at once.
        if self.state == CLIENT_HEAD:
            return self.read_head()
        if self.state == CLIENT_RUNNING:
            if self.request_done:
                return False
            if not self.upgraded:
                return self.pump()
            if self.pump():
                return True
            if self.request_done and self.reply_done and self.fd >= 0:
                self.finish()
            return False
        if self.state == CLIENT_JOIN:
            self.join(NULL)
            return True
        if self.state == CLIENT_LINGER:
            return self.discard()
        return False

    cdef void gone(self) noexcept:
        # The client has left, or is not wanted any more.
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        if self.fd >= 0:
            self.reactor.remove(self)
            self.on_closed()

    cdef void cut(self) noexcept:
        # A response can't be completed: it must not look complete (RFC 9112 8).
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        uncork()
        self.reset_hard()

    cdef void abandon(self, uint16_t code) noexcept:
        cdef End peer = self.peer
        self.stop_waiting()
        if peer is not None:
            detach(self)
            peer.take_reset(code, self.delivery, b"", 0)

    cdef void on_closed(self) noexcept:
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        self.release_held()
        self.drop_stash(self.stash_size)
        self.egress = None
        self.left()

    cdef void linger(self) noexcept:
        # Closing while bytes are unread makes the kernel send a reset, which may overtake the answer.
        self.state = CLIENT_LINGER
        self.drop_stash(self.stash_size)
        self.end_writing()
        self.reactor.arm(self, LINGER_MS if self.out.size == 0 else self.settings.idle_timeout)
        self.reactor.queue_ready(self)

    cdef void depart(self) noexcept:
        # Everything was read; close when everything is written.
        self.state = CLIENT_LINGER
        self.reactor.arm(self, self.settings.idle_timeout)
        self.close_gracefully()

    cdef void await_request(self) noexcept:
        self.rested = self.tls is None or self.settings.idle_timeout <= REST_MS
        self.reactor.arm(self, self.settings.idle_timeout if self.rested else <uint64_t>REST_MS)

    cdef void await_last_request(self) noexcept:
        # It may be on its way, as the client was not told that the connection ends: whoever sends one within
        # the grace still gets an answer, and with it "Connection: close".
        self.reactor.arm(self, min(<uint64_t>DRAIN_GRACE_MS, self.settings.idle_timeout))

    cdef bint rest(self) noexcept:
        # A TLS client that asks nothing for a while gives its buffers back, once; then it has the rest of its time.
        if self.rested or self.shaking or self.tls is None or self.listener.stopping:
            return False
        self.rested = True
        if self.tls.rest():
            self.listener.rested += 1
        self.reactor.arm(self, self.settings.idle_timeout - REST_MS if self.settings.idle_timeout > REST_MS else 1)
        return True

    cdef void on_deadline(self) noexcept:
        if self.state == CLIENT_HEAD:
            if self.need_more:
                self.answer(CODE_REQUEST_TIMEOUT, NEVER_SENT)
            elif self.greeting:
                self.listener.denied += 1
                self.turn_away(CODE_REQUEST_TIMEOUT)
            elif not self.rest() and not self.still_reads():
                self.gone()
        elif self.state == CLIENT_LINGER:
            if not self.still_reads():
                self.gone()
        elif self.state == CLIENT_PROVING:
            self.answer(CODE_OVERLOADED, NEVER_SENT)
        elif self.state != CLIENT_RUNNING:
            self.answer(CODE_NO_SERVICE if isinstance(self.egress, Lobby) else CODE_NO_AGENT, NEVER_SENT)
        else:
            self.expired()

    cdef void on_sent(self) noexcept:
        if self.state == CLIENT_RUNNING and self.reply_begun:
            self.sent_some()
        elif self.state == CLIENT_LINGER and not self.closing:
            self.reactor.arm(self, LINGER_MS if self.out.size == 0 else self.settings.idle_timeout)
        elif self.state == CLIENT_HEAD and self.out.size < OUT_LOW and (self.stash_size > 0 or self.readable):
            self.reactor.queue_ready(self)

    cdef void on_room(self) noexcept:
        self.reactor.queue_ready(self)

    # --- routing and joining ----------------------------------------------

    cdef void begin(self, const unsigned char* data, const Head* head,
                    const unsigned char* body, size_t body_size) noexcept:
        cdef size_t used = head.size
        cdef int ambiguous = 0
        cdef int verdict
        cdef bint kept
        self.egress = self.route(data, head, &ambiguous)
        if isinstance(self.egress, Pool):
            self.settings = (<Pool>self.egress).settings      # the service's own over its port's
        verdict = self.judge(data, head)
        if verdict == GATE_WAIT:
            self.await_proof(data, head.size + body_size)
            return
        self.method_id = head.method_id
        self.minor = head.minor
        self.framing = head.framing
        self.idempotent = head.idempotent
        self.keep_alive = head.keep_alive
        self.request_left = head.content_length if head.framing == BODY_LENGTH else 0
        # A small body that came with its head belongs to the request: it can be sent again.
        self.whole = head.framing == BODY_NONE or (
            head.framing == BODY_LENGTH and head.content_length <= body_size and head.content_length <= HELD_BODY
        )
        self.served += 1
        self.in_flight = True
        self.routed_us = self.reactor.now_us
        self.listener.tally.exchanges += 1
        self.listener.tally.active += 1
        self.total_deadline_ms = (
            self.reactor.now_ms + self.settings.total_timeout if self.settings.total_timeout else 0
        )
        kept = self.hold(data, head, <size_t>self.request_left if self.whole else 0)
        if self.whole:
            used += <size_t>self.request_left
        if data == self.stash:
            self.drop_stash(used)
        elif head.size + body_size > used and not self.keep(data + used, head.size + body_size - used):
            return
        if verdict:
            self.answer(<uint16_t>verdict, NEVER_SENT)
        elif ambiguous:
            self.answer(CODE_BAD_REQUEST, NEVER_SENT)
        elif self.egress is None:
            self.answer(CODE_NO_SERVICE, NEVER_SENT)
        elif self.request_left > self.settings.body:
            self.answer(CODE_BODY_TOO_LARGE, NEVER_SENT)
        elif not kept or chunk_bytes() > memory_limit():
            self.answer(CODE_OVERLOADED, NEVER_SENT)
        else:
            self.join(head)

    cdef int judge(self, const unsigned char* data, const Head* head) noexcept:
        cdef unsigned char address[ADDRESS_SIZE]
        cdef PyObject* caller = NULL
        cdef bint consumed = False
        cdef int verdict
        if self.trusted:
            self.identify(data, head)
            if self.listener.admission is not None and not self.listener.admission.admits(self.claimant):
                self.listener.denied += 1
                return CODE_FORBIDDEN
        self.gate = self.listener.gate
        if isinstance(self.egress, Pool) and (<Pool>self.egress).own_gate:
            self.gate = (<Pool>self.egress).gate
        if self.gate is None:
            return GATE_OPEN
        if self.trusted:
            memcpy(address, self.claimant, ADDRESS_SIZE)
        else:
            read_address(<const unsigned char*>self.address, self.address_size, address)
        verdict = self.gate.check(
            data, head, address, self.certificate, self, self.reactor.now_ms, &caller, &consumed
        )
        self.caller = <Caller>caller if caller != NULL else None
        self.spent = consumed
        return verdict

    cdef bint may_go_on(self) noexcept:
        cdef Gate gate = self.listener.gate
        if isinstance(self.egress, Pool) and (<Pool>self.egress).own_gate:
            gate = (<Pool>self.egress).gate
        if self.caller is None or gate is None or gate is self.gate:
            return True
        return gate.still_admits(self.caller, self.certificate, self.held, self.held_head)

    cdef void await_proof(self, const unsigned char* data, size_t size) noexcept:
        # Nothing of the request is used up: it is read again, once its sender is known.
        self.egress = None
        if data != self.stash and not self.keep(data, size):
            return
        self.state = CLIENT_PROVING
        self.reactor.arm(self, self.settings.head_timeout)

    cdef void proved(self) noexcept:
        if self.fd >= 0 and self.state == CLIENT_PROVING:
            self.state = CLIENT_HEAD
            self.reactor.queue_ready(self)

    cdef Egress route(self, const unsigned char* data, const Head* head, int* ambiguous):
        cdef const unsigned char* host = data + head.host.start
        cdef const unsigned char* path = data + head.path.start
        cdef Target found = self.listener.local.find(host, head.host.size, path, head.path.size, ambiguous)
        if found is None and not ambiguous[0]:
            found = self.listener.delegated.find(host, head.host.size, path, head.path.size, ambiguous)
        if isinstance(found, Egress):
            return <Egress>found
        return self.listener.lobby if self.listener.lobby is not None and not self.listener.lobby.closed else None

    cdef void join(self, const Head* head) noexcept:
        cdef const char* reason = NULL
        cdef uint32_t resume = 0
        cdef Head again
        cdef int result
        if head == NULL or (head.upgrade and self.upgrade is None):
            # What is held is what counts: a change of protocol that is not allowed is no more in it.
            again.fields = held_fields
            if scan_request(self.held, self.held_head, &held_limits, &resume, &again, &reason) <= 0:
                self.answer(CODE_INTERNAL, NEVER_SENT)
                return
            head = &again
        if isinstance(self.egress, Lobby) and self.state == CLIENT_JOIN and not self.look_again(head):
            self.answer(CODE_BAD_REQUEST, NEVER_SENT)
            return
        result = self.join_within(self.egress, head, self.settings.in_flight)
        if result == JOINED:
            self.tries += 1
            self.state = CLIENT_RUNNING
            self.sent_us = self.reactor.now_us
            self.tunnel = tunnel_label(self.peer)
            self.delivery = MAYBE_SENT
            self.send_request()
        elif result != JOIN_WAIT:
            self.answer(<uint16_t>result, NEVER_SENT)
        elif self.settings.agent_wait == 0:
            self.answer(CODE_NO_SERVICE if isinstance(self.egress, Lobby) else CODE_NO_AGENT, NEVER_SENT)
        elif self.egress.waiting >= self.settings.waiting:
            self.answer(CODE_OVERLOADED, NEVER_SENT)
        else:
            if self.state != CLIENT_JOIN:     # waiting again goes on with the old deadline
                self.reactor.arm(self, self.settings.agent_wait)
            self.state = CLIENT_WAITING
            self.egress.wait(self)

    cdef bint look_again(self, const Head* head) noexcept:
        # Whether an agent has announced by now what was not known. False: two readings lead to two services.
        cdef int ambiguous = 0
        cdef Target found = self.listener.delegated.find(
            self.held + head.host.start, head.host.size, self.held + head.path.start, head.path.size, &ambiguous
        )
        if isinstance(found, Egress):
            self.egress = <Egress>found
        return not ambiguous

    cdef void wait_over(self) noexcept:
        self.state = CLIENT_JOIN
        self.reactor.queue_ready(self)

    cdef void send_request(self) noexcept:
        cdef size_t body_size = self.held_body
        cdef uint32_t flags = 0
        if self.whole:
            if body_size == 0 or body_size <= self.peer.room():
                flags = HEAD_END
            else:
                body_size = 0
        self.request_seen = body_size
        if flags & HEAD_END:
            self.request_ended()
        else:
            self.watch(self.settings.idle_timeout)
        if self.upgrade is not None:
            flags = 0             # more follows after a 101; until then nothing is read
        self.peer.take_head(self.held, self.held_head, self.held + self.held_head, body_size, flags)

    cdef void request_ended(self) noexcept:
        self.request_done = True
        self.drop_decoder()
        pace_stop(&self.pace)
        if not self.reply_begun:
            self.watch(self.settings.first_byte_timeout)

    # --- the end of an exchange -------------------------------------------

    cdef void finish(self) noexcept:
        cdef End peer = self.peer
        cdef bint unread = not self.request_done
        if self.upgraded and unread:
            self.end_writing()    # one direction is over; the other one goes on
            return
        if self.in_flight:
            self.count_finished()
        if peer is not None:
            detach(self)
            if unread:
                peer.take_reset(CODE_CANCEL, SENT, b"", 0)
        if self.fd < 0:
            return
        if not self.close_after:
            self.next_request()
        elif unread or self.stash_size > 0 or self.readable:
            self.linger()
        else:
            self.depart()

    cdef void next_request(self) noexcept:
        self.release_held()
        self.request_id.size = 0
        self.claimed = self.spent = False
        self.gate = None
        self.caller = None
        self.egress = None
        self.tunnel = None
        self.settings = self.listener.settings                # which may have been swapped
        self.state = CLIENT_HEAD
        self.tries = 0
        self.begun_us = self.routed_us = self.sent_us = self.replied_us = 0
        self.trace.span = self.trace.parent = 0
        self.total_deadline_ms = self.idle_ms = 0
        pace_stop(&self.pace)
        self.request_left = self.request_seen = self.reply_left = self.reply_seen = 0
        self.unreported = 0
        self.interim_size = 0
        self.method_id = METHOD_OTHER     # of a head that is refused nothing is known
        self.request_done = self.reply_begun = self.reply_done = False
        self.upgrade = None
        self.delivery = self.earlier = NEVER_SENT
        self.failure = self.status = 0
        self.drop_decoder()
        if self.listener.stopping:
            self.await_last_request()     # the answer had begun before
        else:
            self.await_request()
        if self.stash_size > 0 or self.readable:
            self.reactor.queue_ready(self)

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        cdef Journal journal = self.listener.meters.journal
        detach(self)
        journal.because(reason, reason_size)
        if code == CODE_MOVED:
            code = CODE_REFUSED
            self.tries -= 1       # nobody was tried, and that relay is not chosen again
        if self.reply_begun:
            self.failure = code
            self.cut()
        elif self.may_retry(code, delivery):
            self.state = CLIENT_JOIN
            self.request_done = False
            pace_stop(&self.pace)
            self.delivery = NEVER_SENT
            self.earlier = max(self.earlier, delivery)
            self.reactor.arm(self, self.settings.agent_wait)      # should there be nobody else
            self.listener.tally.retries += 1
            self.reactor.queue_ready(self)
        else:
            self.answer(CODE_NO_AGENT if code == CODE_REFUSED else code, delivery)
        journal.because(NULL, 0)

    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept:
        if not self.retained or self.tries >= MAX_TRIES:
            return False
        if delivery == NEVER_SENT:
            return code == CODE_REFUSED or code == CODE_TUNNEL_LOST or (
                code == CODE_UNREACHABLE and self.tries < MAX_UNREACHABLE
            )
        return delivery == MAYBE_SENT and code == CODE_TUNNEL_LOST and self.idempotent

    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept:
        # This side ends the exchange.
        self.abandon(CODE_CANCEL)
        if self.reply_begun:
            self.cut()
        else:
            self.answer(code, delivery)

    cdef void answer(self, uint16_t code, uint8_t delivery) noexcept:
        cdef const Answer* made
        self.stop_waiting()
        if self.fd < 0:
            return
        if not self.in_flight:    # its head was refused, or never came whole
            self.in_flight = True
            self.listener.tally.exchanges += 1
            self.listener.tally.active += 1
        elif self.whole:
            self.request_done = True      # nothing of it is left to read
        delivery = max(delivery, self.earlier)
        made = answer_for(
            code, delivery,
            not self.request_done or not self.keep_alive or self.minor == 0 or self.listener.stopping or self.is_last(),
        )
        if code == CODE_UNAUTHENTICATED and self.gate is not None and delivery == NEVER_SENT:
            made = with_date(&self.gate.challenge.answers[1 if made.close else 0])
        self.failure = code
        self.delivery = delivery
        self.status = made.status
        self.close_after = made.close
        self.reply_begun = self.reply_done = True
        if made.data != NULL:
            self.write(made.data, made.head_size if self.method_id == METHOD_HEAD else made.size)
        self.finish()

    # --- counting ---------------------------------------------------------

    cdef void count_finished(self) noexcept:
        cdef Record record
        self.in_flight = False
        self.count_out()
        self.listener.tally.active -= 1
        self.listener.tally.bytes_in += self.request_seen
        self.listener.tally.bytes_out += self.reply_seen
        self.listener.tally.statuses[self.status // 100 if self.reply_done else 0] += 1
        if self.failure:
            self.listener.tally.failures[self.failure] += 1
        self.fill(&record)
        settle(self.listener.meters, None if isinstance(self.egress, Lobby) else self.egress, &record)

    cdef void fill(self, Record* record) noexcept:
        cdef uint64_t now = self.reactor.now_us
        memset(record, 0, sizeof(Record))
        record.address.data = <const unsigned char*>self.address
        record.address.size = self.address_size
        if self.claimed:
            record.address.data = <const unsigned char*>claimant
            record.address.size = write_address(self.claimant, claimant)
        if self.caller is not None:
            record.user.data = <const unsigned char*><const char*>self.caller.name_bytes
            record.user.size = <uint32_t>len(self.caller.name_bytes)
        if self.request_id.size and self.held != NULL:
            record.request_id.data = self.held + self.request_id.start
            record.request_id.size = self.request_id.size
        record.head.data = self.held
        record.head.size = self.held_head
        record.tunnel = text_of(self.tunnel)
        record.ended_us = now
        record.trace = self.trace
        record.status = self.status if self.reply_done else 0
        record.failure = self.failure
        record.delivery = self.delivery
        record.tries = self.tries
        record.bytes_in = self.request_seen
        record.bytes_out = self.reply_seen
        record.routed_us = since(self.begun_us, self.routed_us)
        record.joined_us = since(self.begun_us, self.sent_us)
        record.replied_us = since(self.begun_us, self.replied_us)
        record.total_us = now - self.begun_us if self.begun_us else 0
