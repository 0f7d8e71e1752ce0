"""Pre-rendered problem answers (RFC 9457), by failure code, delivery fact and connection fate."""

import json

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy
from libc.time cimport time, time_t, tm

from _fastpath.end cimport CODE_COUNT, CODE_INTERNAL, CODE_UNAUTHENTICATED

cdef extern from "<time.h>" nogil:
    tm* gmtime_r(const time_t* seconds, tm* parts)

cdef enum:
    DELIVERIES = 3
    DATE_SIZE = 29

DELIVERY_NAMES = ("never-sent", "maybe-sent", "sent")

cdef Answer table[CODE_COUNT][DELIVERIES][2]
cdef list unauthenticated = [401, "unauthenticated", "Unauthorized", "Valid credentials are needed."]
cdef list rendered = []           # keeps the bytearrays that `table` points into alive
cdef int64_t dated = -1           # the second that `date` shows
cdef char date[DATE_SIZE + 1]

cdef const char* DAYS = b"SunMonTueWedThuFriSat"
cdef const char* MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"
cdef bytes DATE_FIELD = b"Date: "


cdef const Answer* answer_for(uint16_t code, uint8_t delivery, bint close) noexcept:
    if code >= CODE_COUNT or table[code][0][0].data == NULL:
        code = CODE_INTERNAL
    if delivery >= DELIVERIES:
        delivery = 1
    return with_date(&table[code][delivery][1 if close else 0])


cdef inline void two(char* out, int number) noexcept:
    out[0] = <char>(48 + number // 10)
    out[1] = <char>(48 + number % 10)


cdef void write_date(int64_t now) noexcept:
    # Sun, 06 Nov 1994 08:49:37 GMT (RFC 9110 5.6.7); strftime would write it in the locale's words.
    cdef tm parts
    cdef time_t seconds = <time_t>now
    memcpy(date, b"Sun, 06 Nov 1994 08:49:37 GMT", DATE_SIZE + 1)
    if gmtime_r(&seconds, &parts) == NULL:
        return
    memcpy(date, DAYS + 3 * parts.tm_wday, 3)
    two(date + 5, parts.tm_mday)
    memcpy(date + 8, MONTHS + 3 * parts.tm_mon, 3)
    two(date + 12, (parts.tm_year + 1900) // 100)
    two(date + 14, parts.tm_year % 100)
    two(date + 17, parts.tm_hour)
    two(date + 20, parts.tm_min)
    two(date + 23, parts.tm_sec)


cdef const Answer* with_date(Answer* answer) noexcept:
    # Written into the answer once in a second. What is still corked of an earlier one says the newer second, which is true, too.
    global dated
    cdef int64_t now = time(NULL)
    if answer.data == NULL or answer.dated == now:
        return answer
    if now != dated:
        dated = now
        write_date(now)
    answer.dated = now
    memcpy(answer.data + answer.date_at, date, DATE_SIZE)
    return answer


def set_answers(entries: list[tuple[int, int, str, str, str, bool, int]]) -> None:
    """Render the answers: (Code, status, contract code, title, detail, close, Retry-After seconds or 0) each.

    Raises ValueError where a code or status is out of range, or CODE_INTERNAL is missing. Call before the first port opens.
    """
    if CODE_INTERNAL not in {entry[0] for entry in entries}:
        raise ValueError("the table needs an entry for CODE_INTERNAL")
    for code, status, name, title, detail, close, retry_after in entries:
        if not 0 <= code < CODE_COUNT or not 400 <= status <= 599:
            raise ValueError(f"no such code or status: {code}, {status}")
        for delivery in range(DELIVERIES):
            for closing in range(2):
                render(code, status, name, title, detail, close, retry_after, delivery, closing)


cdef render(int code, int status, str name, str title, str detail, bint close, int retry_after,
            int delivery, int closing):
    lines = ["WWW-Authenticate: Bearer"] if code == CODE_UNAUTHENTICATED else []
    if retry_after:
        lines.append(f"Retry-After: {retry_after}")
    if code == CODE_UNAUTHENTICATED and delivery == 0:
        unauthenticated[:] = [status, name, title, detail]
    render_into(&table[code][delivery][closing], status, name, title, detail, lines, delivery, closing or close, rendered)


cdef render_into(Answer* answer, int status, str name, str title, str detail, list more, int delivery, bint close, list keep):
    body = json.dumps({
        "type": "about:blank", "title": title, "status": status, "detail": detail,
        "code": name, "delivery": DELIVERY_NAMES[delivery],
    }).encode() + b"\n"
    lines = [
        f"HTTP/1.1 {status} {title}",
        f"Date: {'-' * DATE_SIZE}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Broker-Error: {name}",
        f"Broker-Delivery: {DELIVERY_NAMES[delivery]}",
        *more,
    ]
    if close:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    data = bytearray(head + body)         # its Date is written anew; its size stays
    keep.append(data)
    answer.data = <unsigned char*>PyByteArray_AS_STRING(data)
    answer.date_at = <uint32_t>(data.index(DATE_FIELD) + len(DATE_FIELD))
    answer.dated = -1
    answer.size = len(data)
    answer.head_size = len(head)
    answer.status = status
    answer.close = close


cdef class Challenge:
    """The answer to who has not proven himself: `values` of WWW-Authenticate, one field each. After set_answers."""

    def __cinit__(self, values):
        self.rendered = []
        status, name, title, detail = unauthenticated
        lines = [f"WWW-Authenticate: {value}" for value in values]
        for closing in range(2):
            render_into(&self.answers[closing], status, name, title, detail, lines, 0, closing, self.rendered)


def render_answer(int code, int delivery, bint close) -> bytes:
    """Return the rendered response for a code, as a client would get it."""
    cdef const Answer* answer = answer_for(<uint16_t>code, <uint8_t>delivery, close)
    if answer.data == NULL:
        raise RuntimeError("set_answers was not called")
    return answer.data[:answer.size]
