"""Commands that have to do with object stores: copying a store there or back, and removing a dead run's lock."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from ecgcohorts.cli.console import Command, output, progress

_out = output()


class Copy(Command):
    """Copy a store between folders and object stores, every file checked; sends only what the target has not."""

    store: CliPositionalArg[str] = Field(description="folder or URL")
    target: CliPositionalArg[str] = Field(description="folder or URL: new, or with an earlier snapshot of this store")

    def cli_cmd(self) -> None:
        from ecgcohorts.store.remote.copy import copy_store

        with progress() as tell:
            report = copy_store(self.store, self.target, progress=lambda done, total: tell("copy", done, total))
        if not report.written:
            _out.print(f"{self.target}: has this snapshot already. Nothing written.")
            return
        _out.print(
            f"{self.target}: {report.files} of {report.of_files} files sent, {report.bytes / 1e6:.1f} MB; "
            f"fingerprint {report.fingerprint[:16]}"
        )


class Unlock(Command):
    """Remove the write lock that a killed run left on a store in an object store."""

    store: CliPositionalArg[str] = Field(description="URL")

    def cli_cmd(self) -> None:
        from ecgcohorts.store.remote.bucket_lock import unlock

        age = unlock(self.store)
        _out.print(f"{self.store}: " + ("had no lock." if age is None else f"removed a lock made {age} ago."))
