"""Application default credentials: which ones, in Google's order (https://google.aip.dev/auth/4110).

First the file that GOOGLE_APPLICATION_CREDENTIALS names, then the one that
`gcloud auth application-default login` writes, then the metadata server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from proxy.identity.files import CredentialsFile
from proxy.identity.google_source import FileSource
from proxy.identity.metadata import MetadataSource
from proxy.identity.source import Authority

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


def well_known_file(environ: Mapping[str, str]) -> CredentialsFile:
    """Return where gcloud keeps the login for applications, whether it is there or not.

    https://cloud.google.com/docs/authentication/application-default-credentials#personal
    """
    if sys.platform == "win32":
        usual = Path(environ.get("APPDATA") or "C:\\") / "gcloud"
    else:
        usual = Path(environ.get("HOME") or "/") / ".config" / "gcloud"
    folder = Path(environ.get("CLOUDSDK_CONFIG") or usual)
    return CredentialsFile(
        folder / "application_default_credentials.json",
        if_missing="Run `gcloud auth application-default login` "
        "(`gcloud auth login` alone is for gcloud itself).",
    )


class AutoSource:
    """Chooses anew for each token, so that a login or a key may appear later."""

    def __init__(
        self,
        environ: Mapping[str, str],
        metadata: MetadataSource,
        open_file: Callable[[CredentialsFile], FileSource],
    ) -> None:
        self._environ = environ
        self._metadata = metadata
        self._open_file = open_file
        self._files: dict[Path, FileSource] = {}
        self.fixed_audience: str | None = None
        """That of the source of the last token."""

    def describe(self) -> str:
        """Name what is chosen at this moment."""
        return self._chosen().describe()

    async def fetch(self, audience: str) -> str:
        """Return an ID token from the first of the three that there is."""
        chosen = self._chosen()
        token = await chosen.fetch(audience)
        self.fixed_audience = chosen.fixed_audience if isinstance(chosen, FileSource) else None
        return token

    async def account(self) -> str | None:
        """Return the account of what is chosen at this moment."""
        return await self._chosen().account()

    async def authorize(self, scopes: tuple[str, ...] = ()) -> Authority:
        """Return an access token from the first of the three that there is."""
        return await self._chosen().authorize(scopes)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _chosen(self) -> FileSource | MetadataSource:
        if named := self._environ.get(VARIABLE):
            # A file that is named and missing is a mistake, not a reason to go on.
            return self._file(
                CredentialsFile(Path(named), if_missing=f"Set or unset {VARIABLE}, which names it.")
            )
        login = well_known_file(self._environ)
        return self._file(login) if login.path.is_file() else self._metadata

    def _file(self, file: CredentialsFile) -> FileSource:
        if file.path not in self._files:
            self._files[file.path] = self._open_file(file)
        return self._files[file.path]
