"""Whether files have changed since the configuration was read from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.config.files import stamp
from proxy.config.model import Stamp


class Watch:
    """Looks at files now and then.

    Not by the kernel's notices: a network's file system sends none, and a volume of Kubernetes
    changes a link two folders above.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, Stamp] = {}
        self._files: Mapping[Path, Stamp] = {}
        """Of the configuration that was in force at the last look."""
        self._told: Mapping[Path, Stamp] = {}
        """What there was when a change was told last; before that, the same."""

    def have_changed(self, files: Mapping[Path, Stamp]) -> bool:
        """Tell, once for each change, whether the files differ from their stamps.

        Only after two looks have found the same: a file may be half written.
        """
        if files is not self._files:
            # Another configuration was taken: by its files alone others are changes.
            self._files = self._told = files
        now = {path: stamp(path) for path in files}
        settled = now == self._seen
        self._seen = now
        # What was told and not taken may have been taken back since: that is a change, too.
        if not settled or now == self._told:
            return False
        self._told = now
        return True
