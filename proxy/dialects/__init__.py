"""Errors in the caller's own language: one small module each, one registry."""

from __future__ import annotations

from proxy.dialects.base import Caller, Dialect, ErrorAnswer
from proxy.dialects.registry import render

__all__ = ["Caller", "Dialect", "ErrorAnswer", "render"]
