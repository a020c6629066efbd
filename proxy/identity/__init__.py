"""ID tokens and access tokens: where they come from, when one may be used, and its header.

`caches.TokenCaches` is the way in: one `cache.TokenCache` per credentials and audience, or
scopes, one policy for all of them.  The sources behind it know how to get a token; only the cache
knows when.
"""
