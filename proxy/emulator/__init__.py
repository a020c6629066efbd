"""Google's side of the wire, on this machine: see `metadata` and `service`."""
