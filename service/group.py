"""The workers of one service: how many there are, which of them this process is, and what each is for."""

from dataclasses import dataclass
from pathlib import Path

from service.shards import shard_of

LEFT = 2
"""Exit code of a worker that a person can mend: said on stderr, and not started again."""
LEAD = 0
"""The worker that changes the catalogue, and judges the canary by the figures of all."""


@dataclass(frozen=True)
class Group:
    """``folder`` is private to the service's user: it holds the workers' sockets and what they share."""

    index: int
    count: int
    folder: Path

    def owner(self, shard: int) -> int:
        """Whose the users of a shard are."""
        return shard % self.count

    def owner_of(self, user_id: str) -> int:
        return self.owner(shard_of(user_id))

    def socket(self, index: int) -> Path:
        return self.folder / f"{index}.sock"

    @property
    def leads(self) -> bool:
        return self.index == LEAD

    @property
    def others(self) -> list[int]:
        return [index for index in range(self.count) if index != self.index]
