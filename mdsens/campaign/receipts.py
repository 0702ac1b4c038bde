"""What is known of a finished task without opening its result: a small JSON file beside it."""

import dataclasses
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from mdsens import __version__

DONE, CACHED, FAILED, BUSY = "done", "cached", "failed", "busy"
LONGEST = 4000  # characters of an error that are kept: a receipt stays below 10 kB


@dataclasses.dataclass(frozen=True)
class Receipt:
    """How a task ended.

    Attributes:
        key: of the task. name, kind, tags: as the task says.
        status: "done": computed now; "cached": it was there; "failed": `error` says why; "busy": another
            process computes it.
        path: of the result, from the folder of the campaign; "" if there is none.
        seconds: of the computation. host, device: where it ran.
        attempts: processes that have begun it.
        finished: seconds since 1970. version: of mdsens. run: which driver asked for it.
    """

    key: str
    name: str
    kind: str
    status: str
    tags: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    path: str = ""
    seconds: float = 0.0
    host: str = ""
    device: str = ""
    error: str = ""
    attempts: int = 1
    finished: float = 0.0
    version: str = __version__
    run: str = ""

    @property
    def label(self) -> str:
        """The name, or the beginning of the key."""
        return self.name or self.key[:12]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for engines."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Receipt":
        """Of plain data; what a later version added is left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def again(self) -> "Receipt":
        """The receipt of a task that was found as it is now."""
        return dataclasses.replace(self, status=CACHED) if self.status == DONE else self


def receipt_of(task: Any, status: str, **more: Any) -> Receipt:
    """A receipt of a task, here and now."""
    error = shortened(more.pop("error", ""))
    where = {"host": socket.gethostname(), "finished": time.time()}
    what = {"key": task.key, "name": task.name, "kind": task.kind, "tags": dict(task.tags)}
    return Receipt(status=status, error=error, **what, **where, **more)


def shortened(text: str) -> str:
    """A text that fits into a receipt: its beginning and its end."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n...\n{text[-half:]}"
