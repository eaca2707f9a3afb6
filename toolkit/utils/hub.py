"""The Hugging Face hub: whether it answers, found out within seconds, since its client retries for half a minute."""

import logging
import sys
from functools import cache
from threading import Thread

from toolkit.utils.errors import reason_of

ANSWER_S = 5.0
"""Seconds to wait for an answer."""


class NoHub(Exception):
    """The hub does not answer; the message says why."""


def hub_address() -> str:
    """Return the address of the hub: that of HF_ENDPOINT, if it is set."""
    from huggingface_hub import constants

    return constants.ENDPOINT


@cache  # of answers only: an error is not kept, since the hub may answer later
def require_answer(repository: str) -> None:
    """Ask the hub once for a repository, which need not exist.

    Raises: NoHub if there is no answer within ANSWER_S seconds, or if HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    found: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().model_info(repository, timeout=ANSWER_S)
            found.append(None)
        except Exception as error:
            found.append(error)

    asking = Thread(target=ask, daemon=True)  # looking up the name of a host has no limit of its own
    asking.start()
    asking.join(ANSWER_S)
    if not found:
        raise NoHub(f"{hub_address()} does not answer within {ANSWER_S:.0f} seconds")
    error = found[0]
    if isinstance(error, OfflineModeIsEnabled):
        raise NoHub("HF_HUB_OFFLINE is set")
    if error is not None and not isinstance(error, HfHubHTTPError | HFValidationError):
        raise NoHub(f"{hub_address()} does not answer: {reason_of(error)}")


def shows_downloads() -> bool:
    """Return whether downloads have progress bars: in a log file they would be a line for each percent."""
    from huggingface_hub.utils import are_progress_bars_disabled

    return not are_progress_bars_disabled() and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def quiet_client(progress: bool) -> None:
    """Silence warnings of the client about retries, and its progress bars unless `progress`."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if progress else disable_progress_bars)()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
