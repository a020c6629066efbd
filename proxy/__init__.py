"""Cloud Run Auth Proxy: a sidecar that adds Google ID tokens to calls between services."""

__version__ = "0.1.0"

PROGRAM = "cloud-run-auth-proxy"
"""The command, as it is typed; and what the program calls itself towards others."""
