"""HTTP/2 on both sides (RFC 9113), between sockets and the codec interfaces.

::

    standard                   numbers of the RFC, and the fault that ends a connection
    frames                     frames as bytes
    huffman, table             what HPACK's two directions stand on (RFC 7541)
    decoder, encoder           header blocks, with a memory
    block                      header blocks that are not taken at once
    fields                     header fields, each judged once
    tolls, budget              what frames cost their sender
    connection                 one end without sockets: segments in, events and frames out
    share                      what callers take together of a turn of the loop
    batch                      one write for all that a segment causes
    endpoint                   the connection on a transport, and the queues of its streams
    heads                      fields ↔ the heads that an exchange knows
    downstream, upstream       the two sides, each with its codec
    pool                       streams on as few connections as the upstream allows

`connection` knows nothing of sockets, limits, or what a request means.
"""
