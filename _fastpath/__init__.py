"""The compiled core: every step that happens per request or per byte.

Python (`broker/`) decides what may happen and hands the decision over as
compiled snapshots (route tables, limits, services); this package moves the
bytes. Imports go downward only:

    memory, wire                 bytes and budgets
    end                          what both sides of an exchange offer
    frame, window, slots, output, stream, session   the tunnel, sans-IO (audit: its invariants; events: tests)
    http1, forward, route        HTTP heads and body framing, sans-IO
    reactor, socket              the only files that know file descriptors
    client, upstream, splice, tunnel     connections and streams, joined by exchanges
"""
