"""What the watch caches hold and do, read when the metrics are asked for; so it costs the caches a few sums.

Source: kubernetes apiserver pkg/storage/cacher/metrics/metrics.go and pkg/storage/etcd3/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from tiphys_apiserver.storage.cacher import Cacher

Facts = Iterable[tuple[str, str, str, Cacher]]
"""Group, version, resource and the cache of each resource that is stored."""

_PLACE = ("group", "resource")
_COUNTERS: tuple[tuple[str, str, Callable[[Cacher], int]], ...] = (
    ("apiserver_watch_cache_events_received", "Events that the cache got from the store.", lambda c: c.received),
    ("apiserver_watch_cache_events_dispatched", "Changes handed to watchers.", lambda c: c.dispatched),
    ("apiserver_watch_cache_initializations", "How often the cache was filled.", lambda c: c.fills),
    ("apiserver_terminated_watchers", "Watches cut off because their clients read too slowly.", lambda c: c.cut_off),
)


def collect_storage(facts: Callable[[], Facts]) -> Callable[[], Iterator[Metric]]:
    """The collector over the caches that facts gives at that moment."""

    def collect() -> Iterator[Metric]:
        found = list(facts())
        objects = GaugeMetricFamily("apiserver_resource_objects", "Objects stored, by kind.", labels=_PLACE)
        old = GaugeMetricFamily("apiserver_storage_objects", "Objects stored, by kind.", labels=("resource",))
        revision = GaugeMetricFamily(
            "apiserver_watch_cache_resource_version", "Revision that the cache has seen.", labels=_PLACE
        )
        watchers = GaugeMetricFamily("apiserver_registered_watchers", "Watches that run.", labels=_PLACE)
        sent = CounterMetricFamily(
            "apiserver_watch_events", "Events sent to watchers.", labels=("group", "version", "resource")
        )
        for group, version, resource, cacher in found:
            objects.add_metric((group, resource), len(cacher))
            old.add_metric((f"{resource}.{group}" if group else resource,), len(cacher))
            revision.add_metric((group, resource), cacher.revision)
            watchers.add_metric((group, resource), cacher.watchers)
            sent.add_metric((group, version, resource), cacher.sent)
        yield from (objects, old, revision, watchers, sent)
        for name, text, read in _COUNTERS:
            counter = CounterMetricFamily(name, text, labels=_PLACE)
            for group, _version, resource, cacher in found:
                counter.add_metric((group, resource), read(cacher))
            yield counter

    return collect
