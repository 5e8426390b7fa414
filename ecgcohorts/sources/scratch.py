"""A private folder for temporary files: mode 0700, below TMPDIR, removed with the run."""

import errno
import shutil
import tempfile
from pathlib import Path

from ecgcohorts.errors import SourceError

PREFIX = "ecgcohorts-"


class Scratch:
    """A folder that is made on first use and removed by the process that made it, unless that is killed.

    A copy sent to another process uses the same folder, and does not remove it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._mine = path, False

    # Sending makes the folder, so that all copies name the same one.
    def __reduce__(self) -> tuple[type["Scratch"], tuple[Path]]:
        return Scratch, (self.path,)

    @property
    def path(self) -> Path:
        """The folder itself."""
        if self._path is None:
            try:
                # mkdtemp makes it for this user alone: recordings lie in it.
                self._path, self._mine = Path(tempfile.mkdtemp(prefix=PREFIX)), True
            except OSError as error:
                raise no_room(error) from None
        return self._path

    def new_folder(self) -> Path:
        """Make an empty folder inside."""
        try:
            return Path(tempfile.mkdtemp(dir=self.path))
        except OSError as error:
            raise no_room(error) from None

    def remove(self) -> None:
        """Remove the folder and all that is in it, if this process made it."""
        if self._mine and self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path, self._mine = None, False


def no_room(error: OSError) -> SourceError:
    """Return the error to raise when a temporary file cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    why = "no room left" if full else error.strerror
    return SourceError(
        f"{tempfile.gettempdir()}: the input needs temporary files, which cannot be written ({why}). Set TMPDIR to a folder "
        "with more room."
    )
