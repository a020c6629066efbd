from __future__ import annotations

import pytest

from proxy.emulator.claims import CALLER, SOMEWHERE, Instance
from proxy.emulator.tree import Live, as_json, as_text, build, find

TREE = build(SOMEWHERE, CALLER)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("project/project-id", "emulated-project"),
        ("project/numeric-project-id", 123456789012),
        ("instance/region", "projects/123456789012/regions/us-central1"),
        ("instance/zone", "projects/123456789012/zones/us-central1-1"),
        ("instance/service-accounts/default/email", CALLER.email),
        (f"instance/service-accounts/{CALLER.email}/token", Live.TOKEN),
        ("instance/service-accounts/default/identity", Live.IDENTITY),
        ("universe/universe-domain", "googleapis.com"),
        ("instance/service-account", None),
        ("instance/region/more", None),
        ("nothing", None),
    ],
)
def test_a_key_is_found_by_its_path(path: str, expected: object) -> None:
    assert find(TREE, path.split("/")) == expected


def test_a_listing_marks_directories_with_a_slash() -> None:
    assert as_text({"id": "1", "disks": {}}) == "id\ndisks/\n"


def test_values_are_text_and_lists_are_lines() -> None:
    assert as_text(("one", "two")) == "one\ntwo\n"
    assert as_text(7) == "7"


def test_json_has_camel_case_names_and_nothing_live() -> None:
    instance = Instance(project_number=7)
    dashed = "a-b@c-d.iam.gserviceaccount.com"
    node = build(instance, None)
    node["accounts"] = {dashed: {"token": Live.TOKEN, "scopes": ("s",)}}

    assert as_json(node) == {
        "instance": {
            "id": instance.instance_id,
            "region": "projects/7/regions/us-central1",
            "serviceAccounts": {},
            "zone": "projects/7/zones/us-central1-1",
        },
        "project": {"numericProjectId": 7, "projectId": "emulated-project"},
        "universe": {"universeDomain": "googleapis.com"},
        "accounts": {dashed: {"scopes": ["s"]}},
    }
