"""Where raw recordings come from: a folder, a bucket, or a tar or zip. All are read as real files in a folder.

Readers know nothing of this. Files of a folder are read where they are; of the others, the files of a few recordings at a
time are written into a private temporary folder and removed again: `at_hand` and `local` of `sources.windows`.
"""

from pathlib import Path
from urllib.parse import unquote

from ecgcohorts.errors import SourceError
from ecgcohorts.io.buckets import Bucket, is_url
from ecgcohorts.io.place import Folder
from ecgcohorts.sources.archive import Archive
from ecgcohorts.sources.loose import LooseFiles
from ecgcohorts.sources.names import FILE, path_of
from ecgcohorts.sources.source import Source

__all__ = ["Archive", "Source", "open_source"]


def open_source(where: str | Path) -> LooseFiles | Archive:
    """Open a folder, an archive, or the URL of a bucket, by path, URL, or the address of a source.

    Raises SourceError for anything else, SpecError for a URL that cannot be used.
    """
    text = str(where)
    if is_url(text):
        return LooseFiles(Bucket(text))
    # Of an address only: the path of a folder may hold a # itself.
    uri, _, below = text.partition("#") if text.startswith(FILE) else (text, "", "")
    path = path_of(uri) if text.startswith(FILE) else Path(where)
    if not path.exists():
        raise SourceError(f"{path}: found no such folder or file, expected the recordings. Check the path.")
    return LooseFiles(Folder(path)) if path.is_dir() else Archive(path, unquote(below, errors="surrogateescape"))
