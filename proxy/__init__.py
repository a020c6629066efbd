"""Cloud Run Auth Proxy: a sidecar that adds Google ID tokens to calls between services."""

__version__ = "0.1.0"
