"""Secrets as they stand by mistake where a name belongs, and what each looks like."""

from __future__ import annotations

import base64
import json

from proxy.config.misplaced import LONGEST_PATH
from tests.fakes.steering import HOUR, jwt

KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"
FILE = json.dumps({"type": "service_account", "private_key": KEY})

SECRETS = {
    FILE: "a JSON document",
    json.dumps({"type": "service_account"}, indent=2): "a JSON document",
    f"\n {FILE}": "a JSON document",
    KEY: "a private key",
    KEY.replace("\n", "\\n"): "a private key",
    "-----BEGIN RSA PRIVATE KEY-----": "a private key",
    "-----BEGIN CERTIFICATE-----\nMIIB": "the content of a PEM file",
    base64.b64encode(KEY.encode()).decode(): "the content of a PEM file",
    base64.b64encode(FILE.encode()).decode(): "a token",
    base64.b64encode(json.dumps({"a": "b"}, indent=2).encode() * 3).decode(): "a token",
    base64.b64encode(bytes(range(100, 132))).decode(): "a token",
    jwt(HOUR): "a token",
    f"{jwt(HOUR)}\n": "a token",
    f"Bearer {jwt(HOUR)}": "a token",
    "bearer abc": "a token",
    "ya29.a0AfB_by": "a token",
    "1//0gxyz-abc": "a token",
    "GOCSPX-abc_def": "a token",
    "AIzaSy" + 30 * "x": "a token",
    "0123456789abcdef0123456789abcdef01234567": "a token",
    "one\ntwo\nthree": "a text of 3 lines",
    "one\r\ntwo": "a text of 2 lines",
    "x" * (LONGEST_PATH + 1): f"a text of {LONGEST_PATH + 1} characters",
}
