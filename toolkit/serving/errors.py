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
    """A request that is not answered. `code` is the HTTP status, `message` says what to change."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def error_body(code: int, message: str) -> dict[str, Any]:
    """Return the body of every error, in the form of Google's APIs, which clients of Perspective read."""
    return {"error": {"code": code, "message": message, "status": STATUS.get(code, "UNKNOWN")}}
