"""HTTP/2 on both sides (RFC 9113): the h2 library, between sockets and the codec interfaces.

::

    standard                   numbers of the RFC, and the ways in which a peer breaks it
    buffer, connection         h2's frame buffer and connection, with what a proxy needs beyond
    decoder, encoder           hpack's coders, with a memory
    frames                     how HEADERS and DATA are written
    fields                     header fields, each judged once
    tolls, budget              what frames cost their sender
    endpoint, stream           frames → streams, and back: what both sides have in common
    heads                      fields ↔ the heads that an exchange knows
    downstream, upstream       the two connections; answering, asking: their codecs
    pool                       streams on as few connections as the upstream allows

h2 reads every frame, writes all but HEADERS and DATA, and keeps the state and the windows of every
stream.  It knows nothing of sockets, limits, or what a request means.  Nothing outside `buffer`,
`connection`, `decoder` and `encoder` touches its insides, and nothing outside `endpoint` and
`stream` and their two sides sees it at all.
"""
