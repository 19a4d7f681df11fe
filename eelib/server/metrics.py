"""What `/metrics` tells Prometheus. One registry a server, so that two in a process do not mix."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "eelib_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "eelib_request_seconds",
            "Seconds from a request's arrival to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.tokens = self._counter("eelib_tokens", "Generated tokens")
        self.prompt_tokens = self._counter("eelib_prompt_tokens", "Tokens of prompts")
        self.prompt_tokens_warm = self._counter(
            "eelib_prompt_tokens_warm",
            "Tokens of prompts whose keys and values were kept from earlier requests",
        )
        self.layers_run = self._counter(
            "eelib_layers_run", "Layers that generated tokens ran before they left"
        )
        self.layers_skipped = self._counter("eelib_layers_skipped", "Layers that generated tokens left out")
        self.energy = self._counter(
            "eelib_energy_joules", "Energy of requests that ran alone on a device with a counter"
        )
        self.cancellations = self._counter(
            "eelib_cancellations", "Decodings stopped early: the client left, a deadline, a stop sequence"
        )
        self.warm_bytes = Gauge(
            "eelib_warm_bytes", "Bytes of keys and values kept between requests", registry=self.registry
        )
        self.waiting = Gauge("eelib_queue_waiting", "Requests that wait", registry=self.registry)
        self.active = Gauge("eelib_queue_active", "Requests that decode", registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def count(self, layers: list[int], total_layers: int, joules: float | None) -> None:
        """Count what one completion ran."""
        self.tokens.inc(len(layers))
        self.layers_run.inc(sum(layers))
        self.layers_skipped.inc(total_layers * len(layers) - sum(layers))
        self.energy.inc(joules or 0)

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
