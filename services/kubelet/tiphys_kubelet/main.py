"""The kubelet's entry."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tiphys_client.client import Client
from tiphys_client.counted_transport import counted_transport
from tiphys_client.kubeconfig import load
from tiphys_component import log
from tiphys_component.app import StartupError, run
from tiphys_component.clock import SystemClock
from tiphys_component.options import parse
from tiphys_cri.endpoint import channel, socket_target
from tiphys_cri.image import GrpcImageService
from tiphys_cri.runtime import GrpcRuntimeService
from tiphys_kubelet.kubelet import Kubelet, Outside, prepare_directories
from tiphys_kubelet.options import Options


class KubeletService:
    """The kubelet on a real API server and a real runtime."""

    def __init__(self, options: Options) -> None:
        self._options = options

    async def run(self) -> None:
        """Works until cancelled. Raises StartupError."""
        options = self._options
        check(options)
        await prepare_directories(options)
        image_endpoint = options.image_service_endpoint or options.container_runtime_endpoint
        runtime_channel = channel(options.container_runtime_endpoint)
        image_channel = channel(image_endpoint)
        config = load(options.kubeconfig)
        transport = counted_transport(config)
        client = Client(transport, field_manager="kubelet")
        try:
            outside = Outside(
                client,
                GrpcRuntimeService(runtime_channel),
                GrpcImageService(image_channel),
                SystemClock(),
                config.cert_pem,
            )
            kubelet = Kubelet(options, outside)
            transport.show_in(kubelet.metrics.registry)
            await kubelet.run()
        finally:
            await client.close()
            await runtime_channel.close(None)
            await image_channel.close(None)


def check(options: Options) -> None:
    """Refuses what can't work, before anything is touched. Raises StartupError."""
    if os.geteuid() != 0:
        raise StartupError("the kubelet must run as root", "it mounts volumes and speaks to the runtime's socket")
    endpoint = options.container_runtime_endpoint
    try:
        target = socket_target(endpoint)
        _ = options.taints
    except ValueError as err:
        raise StartupError(str(err), "correct the flag") from err
    path = target.removeprefix("unix:")
    if target.startswith("unix:") and not os.path.exists(path):
        raise StartupError(
            f"no container runtime listens at {path}",
            "start containerd, or name its socket with --container-runtime-endpoint",
        )


def warn_of_manifests(options: Options) -> None:
    """Says so when somebody expects static pods to run."""
    path = options.pod_manifest_path
    if path is not None and path.is_dir() and (names := sorted(entry.name for entry in path.iterdir())):
        log.get_logger("kubelet").warning("static pods are not run by this version", path=str(path), files=len(names))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the kubelet; returns the exit code."""
    options = parse(Options, argv, prog="kubelet")
    log.configure(options.log_level, options.log_format)
    warn_of_manifests(options)
    return run(KubeletService(options), name="kubelet")
