"""What a source says now that differs from what a store took from it before."""

from pydantic import BaseModel, ConfigDict


class _Changes(BaseModel):
    """Counts of recordings that a store has met, and of what is otherwise with them now. Truthy if a store is behind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recordings: int = 0  # stored, with a fact that is another one now
    facts: dict[str, int] = {}  # of them, by fact
    files: int = 0  # stored, from a file that has another size or time now
    mended: int = 0  # refused, from such a file
    refused: int = 0  # all that were refused and that the source still shows
    unseen: int = 0  # stored, and not in the source

    def __bool__(self) -> bool:
        return bool(self.recordings or self.files or self.mended)

    def __str__(self) -> str:
        """Say what changed, without a remedy."""
        facts = ", ".join(f"{name} {count:,}" for name, count in self.facts.items())
        parts = []
        if self.recordings or not (self.files or self.mended or self.refused):
            parts.append(f"facts of {_counted(self.recordings, 'recording')} changed{f' ({facts})' if facts else ''}")
        if self.files:
            parts.append(f"the files of {_counted(self.files, 'recording')} were replaced")
        if self.mended:
            parts.append(f"the files of {_counted(self.mended, 'refused one')} were replaced")
        if self.refused:
            parts.append(f"{_counted(self.refused, 'refused one')} could be read again")
        return ", ".join(parts)


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
