"""ID tokens: where they come from, when one may be used, and the header that carries it.

`caches.TokenCaches` is the way in: one `cache.TokenCache` per credentials and audience, one policy
for all of them.  The sources behind it know how to get a token; only the cache knows when.
"""
