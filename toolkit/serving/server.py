"""Run the service: bind the port, start the workers, stop without an answer cut off."""

import os
import signal
import socket
from functools import partial
from typing import Any

from toolkit.serving.settings import ServeSettings
from toolkit.utils.console import say
from toolkit.utils.errors import InputError
from toolkit.utils.scratch import scratch_folder

BACKLOG = 2048
"""Connections that wait to be accepted."""


def serve(settings: ServeSettings, host: str, port: int, workers: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in work are answered first.

    Raises: InputError, before the port is bound, if a package is not intact or the extra is not installed; then if the
      port cannot be bound.
    """
    if workers == 1:
        _run(settings, host, port, workers)
        return
    with scratch_folder() as counters:  # before prometheus_client is imported, which reads it then
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.fspath(counters)
        _run(settings, host, port, workers)


def _run(settings: ServeSettings, host: str, port: int, workers: int) -> None:
    try:
        import uvicorn
        from uvicorn.supervisors import Multiprocess

        from toolkit.serving.app import create_app
        from toolkit.serving.models import verified
        from toolkit.serving.protocol import timed_protocol
    except ImportError as error:
        raise InputError(f"hbt serve needs {error.name}: pip install 'hbt-toolkit[serve]'") from None
    served = [verified(name, folder) for name, folder in settings.packages]
    app = create_app(settings, served)  # its checks, before any port is bound
    bound = _bind(host, port)
    options: dict[str, Any] = {
        "http": timed_protocol(settings.limits.body_seconds),
        "backlog": BACKLOG,
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": settings.limits.stop_seconds,
        "timeout_worker_healthcheck": 60,
    }
    names = ", ".join(name for name, _ in settings.packages)
    say(f"serving {names} on http://{_shown(host)}:{bound.getsockname()[1]} with {workers} worker{'s' * (workers > 1)}")
    for ending in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it has caught again, when all is answered
        signal.signal(ending, lambda *_: None)
    with bound:
        if workers == 1:
            uvicorn.Server(uvicorn.Config(app, **options)).run([bound])
        else:
            del app, served  # the workers have their own
            made = partial(create_app, settings)
            Multiprocess(uvicorn.Config(made, factory=True, workers=workers, **options), [bound]).run()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        if os.name != "nt":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)  # requests wait for the workers from now on
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: cannot be bound ({error.strerror}); give another") from None
    bound.set_inheritable(True)
    return bound


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
