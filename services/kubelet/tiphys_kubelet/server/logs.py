"""GET /containerLogs/NAMESPACE/POD/CONTAINER."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_component.proc import to_thread
from tiphys_kubelet.observation import ContainerObservation, PodObservation
from tiphys_kubelet.pod_spec import find_container
from tiphys_kubelet.pod_status import CONTAINER_CREATING
from tiphys_kubelet.server.file_watch import FileWatch
from tiphys_kubelet.server.log_file import LogFormatter, LogOptions, read_chunk, tail_offset

# How often a follower looks whether the container still runs, when nothing is written.
LIVENESS_S = 1.0


class LogError(Exception):
    """The log can't be had; the message is for the user."""


def parse_options(query: Mapping[str, str], now: datetime) -> LogOptions:
    """Options of a request. Raises LogError."""
    try:
        since = None
        if query.get("sinceSeconds"):
            since = now - timedelta(seconds=int(query["sinceSeconds"]))
        elif query.get("sinceTime"):
            since = datetime.fromisoformat(query["sinceTime"].replace("Z", "+00:00"))
        tail = int(query["tailLines"]) if query.get("tailLines") else None
        limit = int(query["limitBytes"]) if query.get("limitBytes") else None
    except ValueError as err:
        raise LogError(f"invalid log option: {err}") from err
    if tail is not None and tail < 0:
        raise LogError(f"tailLines must not be negative, got {tail}")
    return LogOptions(
        follow=_flag(query, "follow"),
        tail_lines=tail,
        since=since,
        timestamps=_flag(query, "timestamps"),
        previous=_flag(query, "previous"),
        limit_bytes=limit,
        stream=query.get("stream") or "All",
    )


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "t")


def find_log(pod: Pod, observed: PodObservation, container: str, *, previous: bool) -> ContainerObservation:
    """The run of a container whose log is meant. Raises LogError."""
    name = pod.metadata.name
    if find_container(pod, container) is None:
        raise LogError(f"container {container} is not valid for pod {name}")
    latest = observed.latest(container)
    if previous:
        before = observed.previous(container)
        if before is None and latest is not None and not latest.is_running and _waits(pod, container):
            before = latest  # in a crash loop the newest run is the one that has ended
        if before is None:
            raise LogError(f'previous terminated container "{container}" in pod "{name}" not found')
        return before
    if latest is None:
        statuses = (*pod.status.containerStatuses, *pod.status.initContainerStatuses)
        told = next((s for s in statuses if s.name == container), None)
        reason = told.state.waiting.reason if told is not None else CONTAINER_CREATING
        raise LogError(f'container "{container}" in pod "{name}" is waiting to start: {reason or CONTAINER_CREATING}')
    return latest


def _waits(pod: Pod, container: str) -> bool:
    return any(s.name == container and s.state.HasField("waiting") for s in pod.status.containerStatuses)


async def stream_log(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """The log in pieces; with follow until the container has ended and all of it has been read."""
    formatter = LogFormatter(options)
    offset = 0
    if options.tail_lines is not None:
        try:
            offset = await to_thread(tail_offset, path, options.tail_lines)
        except FileNotFoundError:
            offset = 0
    async with FileWatch(path.parent) as watch:
        while not formatter.is_full:
            # Asked before reading: what is written between the two is read before the end is believed.
            running = is_running()
            chunk = await to_thread(read_chunk, path, offset)
            offset += len(chunk)
            if chunk:
                if text := formatter.feed(chunk):
                    yield text
            elif not options.follow or not running:
                return
            else:
                await watch.wait(LIVENESS_S)
