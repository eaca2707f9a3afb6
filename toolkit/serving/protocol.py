"""HTTP of uvicorn with a limit on the time in which the first request of a connection must begin."""

from functools import partial
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedProtocol(H11Protocol):
    """Close a connection that has sent no complete request head in time: uvicorn waits for it without end."""

    def __init__(self, *arguments: Any, head_seconds: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.head_seconds = head_seconds

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(self.head_seconds, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def timed_protocol(seconds: float) -> Any:
    """Return the protocol class for `uvicorn.Config`, which is sent to the workers."""
    return partial(TimedProtocol, head_seconds=seconds)
