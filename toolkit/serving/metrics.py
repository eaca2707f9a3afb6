"""Counters of the service in the text format of Prometheus, over all workers."""

import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: the folder in which workers share their counters."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hbt_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "hbt_request_seconds", "Seconds of a request.", ("route",), registry=self.registry, buckets=_SECONDS
        )
        self.texts = Counter("hbt_texts", "Texts scored by a package.", ("package",), registry=self.registry)
        self.out_of_scope = Counter(
            "hbt_texts_out_of_scope",
            "Texts unlike those of training, by reason.",
            ("package", "reason"),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "hbt_requests_in_progress",
            "Requests that wait or are answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.reloads = Counter(
            "hbt_reloads", "New packages in a served folder, by result.", ("package", "result"), registry=self.registry
        )

    def text(self) -> tuple[bytes, str]:
        """Return the counters of all workers, and the content type."""
        registry = self.registry
        if os.environ.get(FOLDER) and Path(os.environ[FOLDER]).is_dir():
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
