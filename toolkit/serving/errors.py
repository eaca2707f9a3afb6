"""Requests that are refused."""

from typing import Any

STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, code: int, message: str, unread: bool = False) -> None:
        """code: HTTP status. message: what to change.

        unread: whether the connection must end, since the body was not read.
        """
        super().__init__(message)
        self.code, self.message, self.unread = code, message, unread


def error_body(code: int, message: str) -> dict[str, Any]:
    """Return the body of every error, in the form of Google's APIs, which clients of Perspective read."""
    return {"error": {"code": code, "message": message, "status": STATUS.get(code, "UNKNOWN")}}
