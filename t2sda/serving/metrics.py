"""What a server tells Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from t2sda.serving.waiting import Queue

STAGES = ("wait", "decode", "network", "encode")


class Metrics:
    """Of one server.

    Args:
        queue: whose length is shown.
    """

    def __init__(self, queue: Queue) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "t2sda_requests", "Answered, by HTTP status", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "t2sda_stage_seconds", "Of one image", ["stage"], registry=self.registry
        )
        for stage in STAGES:
            self.seconds.labels(stage)
        length = Gauge("t2sda_queue_length", "Waiting or in work", registry=self.registry)
        length.set_function(lambda: queue.length)
        capacity = Gauge("t2sda_queue_capacity", "Taken at once", registry=self.registry)
        capacity.set(queue.capacity)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
