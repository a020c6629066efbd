"""Several processes that serve on the same ports, and the parent that keeps them.

`supervisor` is the parent, `worker` the program of a child, `child` the parent's view of it,
and `channel` what they say to each other.  Only where `proxy.system.HAS_WORKERS`.
"""
