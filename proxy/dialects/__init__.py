"""Errors in the caller's own language: one small module each, one registry."""

from __future__ import annotations

from proxy.dialects.base import Dialect, ErrorAnswer, Request
from proxy.dialects.registry import is_recognised, render

__all__ = ["Dialect", "ErrorAnswer", "Request", "is_recognised", "render"]
