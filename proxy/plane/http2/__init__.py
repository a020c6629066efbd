"""HTTP/2 on both sides (RFC 9113), from frames to the two codec interfaces.

::

    fields, decoder, encoder   header blocks (RFC 7541): every field is judged once
    frames, reader             segments → frames, whatever they mean
    endpoint, stream           settings, windows, pings, GOAWAY: what both sides have in common
    heads                      fields ↔ the heads that an exchange knows
    downstream, upstream       the two codecs
    pool                       streams on as few connections as the upstream allows

The h2 library is not used: its connection refuses everything once a GOAWAY was sent or came
(`h2.connection`, state CLOSED), where a proxy has to let streams end, and its events cost
several times what all the rest of a small call does.  hpack's tables are.
"""
