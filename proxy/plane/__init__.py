"""The data path: what happens to every request, and nothing that does not have to."""
