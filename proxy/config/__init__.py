"""The configuration: YAML with places in, frozen data or every mistake at once out.

`loading` holds the ways in (`parse`, `load`, `from_url`), `model` what comes out, `problems`
what is raised.
"""
