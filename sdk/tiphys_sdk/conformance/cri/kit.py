"""The steps: a runtime by itself, a sandbox's life, a container's life, and what is not there.

The endpoint is the runtime's socket (`/run/containerd/containerd.sock` or `unix:///…`). Options:

- `image`: an image that is present and has `sleep`; by default the first one listed whose name has busybox in it
- `log-dir`: where containers' logs may go, /tmp by default
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.cri.v1 import api_pb2_grpc as cri_grpc
from tiphys_sdk.conformance.bench import Bench, Failure, check_options, expect, expect_code

OPTIONS = ("image", "log-dir")
_CALL_S = 60.0
_GONE = "0" * 64
_EXIT_LOOKS, _EXIT_LOOK_S = 100, 0.05


@dataclass(frozen=True, slots=True)
class Stubs:
    """The two services of one socket."""

    runtime: cri_grpc.RuntimeServiceAsyncStub
    images: cri_grpc.ImageServiceAsyncStub


async def run(endpoint: str, bench: Bench, options: Mapping[str, str]) -> None:
    """Tests the runtime. Raises ValueError for an endpoint that is no socket."""
    check_options(options, OPTIONS)
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        raise ValueError(f"{endpoint!r} is neither a path nor unix:///PATH")
    dialling = (("grpc.default_authority", "localhost"),)  # containerd refuses the one made from a path
    async with grpc.aio.insecure_channel(
        f"unix:{path}", options=dialling, interceptors=bench.interceptors()
    ) as channel:
        stubs = Stubs(cri_grpc.RuntimeServiceStub(channel), cri_grpc.ImageServiceStub(channel))
        if not await _itself(bench, stubs):
            return
        image = await _images(bench, stubs, options.get("image", ""))
        await _absent(bench, stubs)
        await _Lives(bench, stubs, image, options.get("log-dir", "/tmp")).all_steps()


async def _itself(bench: Bench, stubs: Stubs) -> bool:
    async with bench.step("version", "Version names the runtime and its version of the interface"):
        found = await stubs.runtime.Version(cri.VersionRequest(version="v1"), timeout=_CALL_S)
        expect(found.runtime_name and found.runtime_version, "runtime_name or runtime_version is empty")
        expect(found.runtime_api_version == "v1", f"runtime_api_version is {found.runtime_api_version!r}")
    if not bench.passed("version"):
        return False
    async with bench.step("status", "Status has RuntimeReady and NetworkReady, both true"):
        status = (await stubs.runtime.Status(cri.StatusRequest(), timeout=_CALL_S)).status
        conditions = {one.type: one.status for one in status.conditions}
        wanted = {"RuntimeReady": True, "NetworkReady": True}
        expect(wanted.items() <= conditions.items(), f"the conditions are {conditions}")
    return True


async def _images(bench: Bench, stubs: Stubs, wanted: str) -> str:
    """An image to run; empty where there is none."""
    image = ""
    async with bench.step("images", "ListImages gives images with ids; ImageStatus finds one by its name and id"):
        listed = (await stubs.images.ListImages(cri.ListImagesRequest(), timeout=_CALL_S)).images
        expect(all(one.id for one in listed), "an image has no id")
        names = [tag for one in listed for tag in one.repo_tags]
        name = wanted or next((tag for tag in names if "busybox" in tag), "")
        expect(name, f"no image to run; --option image=NAME: {', '.join(names) or 'there is none'}")
        found = await _image(stubs, name)
        expect(found is not None, f"{name} is not found")
        assert found is not None
        again = await _image(stubs, found.id)
        expect(again is not None and again.id == found.id, f"{name} is not found by its id {found.id}")
        image = found.id
    async with bench.step("absent image", "ImageStatus of what is not there is an answer without an image"):
        expect(await _image(stubs, "nobody.invalid/has/this:1") is None, "an image was found")
    async with bench.step("image file system", "ImageFsInfo tells what images use"):
        usage = await stubs.images.ImageFsInfo(cri.ImageFsInfoRequest(), timeout=_CALL_S)
        expect(usage.image_filesystems, "no file system is told")
    return image


async def _image(stubs: Stubs, name: str) -> cri.Image | None:
    request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name))
    answer = await stubs.images.ImageStatus(request, timeout=_CALL_S)
    return answer.image if answer.HasField("image") else None


async def _absent(bench: Bench, stubs: Stubs) -> None:
    runtime, missing = stubs.runtime, grpc.StatusCode.NOT_FOUND
    async with bench.step("unknown sandbox", "PodSandboxStatus of an unknown id is NOT_FOUND"):
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=_GONE)
        await expect_code(runtime.PodSandboxStatus(request, timeout=_CALL_S), missing)
    async with bench.step("unknown container", "status, start and exec of an unknown id are NOT_FOUND"):
        await expect_code(
            runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=_GONE), timeout=_CALL_S), missing
        )
        await expect_code(
            runtime.StartContainer(cri.StartContainerRequest(container_id=_GONE), timeout=_CALL_S), missing
        )
        request_exec = cri.ExecSyncRequest(container_id=_GONE, cmd=["true"], timeout=1)
        await expect_code(runtime.ExecSync(request_exec, timeout=_CALL_S), missing)
    async with bench.step("removing what is unknown", "RemovePodSandbox and RemoveContainer of an unknown id succeed"):
        await runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=_GONE), timeout=_CALL_S)
        await runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=_GONE), timeout=_CALL_S)


class _Lives:
    """One sandbox and one container from begin to end, each step made twice where it must bear it."""

    def __init__(self, bench: Bench, stubs: Stubs, image: str, log_dir: str) -> None:
        uid = str(uuid.uuid4())
        metadata = cri.PodSandboxMetadata(name=f"cri-kit-{uid[:8]}", namespace="cri-kit", uid=uid, attempt=1)
        self._bench = bench
        self._runtime = stubs.runtime
        self._image = image
        self._config = cri.PodSandboxConfig(
            metadata=metadata,
            hostname="cri-kit",
            log_directory=log_dir,
            labels={"cri-kit": uid},
            annotations={"kit.tiphys.dev/note": "kept"},
        )
        self._config.linux.SetInParent()
        self._sandbox = ""
        self._container = ""

    async def all_steps(self) -> None:
        """Every step; what was made is gone at the end."""
        step = self._bench.step
        async with step("sandbox runs", "RunPodSandbox gives an id; its status is READY with identity and address"):
            await self._run_sandbox()
        if not self._sandbox:
            return
        async with self._cleared():
            async with step("sandbox listed", "ListPodSandbox narrowed by label and by id gives this one alone"):
                await self._list_sandbox()
            async with step("container created", "CreateContainer gives an id; the container is CREATED, not started"):
                await self._create()
            if self._container:
                await self._container_life()
            async with step("sandbox stops twice", "StopPodSandbox may be repeated; the sandbox is NOTREADY then"):
                for _ in range(2):
                    await self._stop_sandbox()
                status = await self._sandbox_status()
                expect(status.state == cri.SANDBOX_NOTREADY, "the sandbox is still READY")
            async with step("sandbox removed twice", "RemovePodSandbox may be repeated; the sandbox is NOT_FOUND then"):
                for _ in range(2):
                    request = cri.RemovePodSandboxRequest(pod_sandbox_id=self._sandbox)
                    await self._runtime.RemovePodSandbox(request, timeout=_CALL_S)
                status_request = cri.PodSandboxStatusRequest(pod_sandbox_id=self._sandbox)
                await expect_code(
                    self._runtime.PodSandboxStatus(status_request, timeout=_CALL_S), grpc.StatusCode.NOT_FOUND
                )

    async def _container_life(self) -> None:
        step, runtime = self._bench.step, self._runtime
        async with step("container starts", "StartContainer brings it to RUNNING, with times in order"):
            await runtime.StartContainer(cri.StartContainerRequest(container_id=self._container), timeout=_CALL_S)
            status = await self._status()
            expect(status.state == cri.CONTAINER_RUNNING, f"the state is {_state(status)}")
            expect(status.started_at >= status.created_at > 0, "started_at is before created_at, or neither is told")
        async with step("started again", "StartContainer of a running container fails"):
            call = runtime.StartContainer(cri.StartContainerRequest(container_id=self._container), timeout=_CALL_S)
            await _expect_failure(call)
        async with step("container listed", "ListContainers narrowed by label and sandbox gives this one alone"):
            await self._list_container()
        async with step("command runs", "ExecSync gives output and exit code of a command"):
            await self._exec()
        async with step(
            "container stops twice", "StopContainer may be repeated; the container is EXITED, its end told"
        ):
            for _ in range(2):
                request = cri.StopContainerRequest(container_id=self._container, timeout=0)
                await runtime.StopContainer(request, timeout=_CALL_S)
            status = await self._exited()
            expect(status.exit_code != 0, "a killed container has exit code 0")
            expect(status.finished_at >= status.started_at > 0, "finished_at is before started_at, or neither is told")
        async with step("container removed twice", "RemoveContainer may be repeated; it is NOT_FOUND then"):
            for _ in range(2):
                request_remove = cri.RemoveContainerRequest(container_id=self._container)
                await runtime.RemoveContainer(request_remove, timeout=_CALL_S)
            status_request = cri.ContainerStatusRequest(container_id=self._container)
            await expect_code(runtime.ContainerStatus(status_request, timeout=_CALL_S), grpc.StatusCode.NOT_FOUND)

    async def _run_sandbox(self) -> None:
        request = cri.RunPodSandboxRequest(config=self._config)
        self._sandbox = (await self._runtime.RunPodSandbox(request, timeout=_CALL_S)).pod_sandbox_id
        expect(self._sandbox, "the id is empty")
        status = await self._sandbox_status()
        expect(status.state == cri.SANDBOX_READY, "the sandbox is not READY")
        expect(status.metadata == self._config.metadata, f"the metadata is {status.metadata}")
        expect(dict(status.labels) == dict(self._config.labels), f"the labels are {dict(status.labels)}")
        expect(status.annotations.get("kit.tiphys.dev/note") == "kept", "annotations are not kept")
        expect(status.network.ip, "the sandbox has no address")
        expect(status.created_at > 0, "created_at is not told")

    async def _sandbox_status(self) -> cri.PodSandboxStatus:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=self._sandbox)
        return (await self._runtime.PodSandboxStatus(request, timeout=_CALL_S)).status

    async def _list_sandbox(self) -> None:
        by_label = cri.PodSandboxFilter(label_selector=dict(self._config.labels))
        for narrowed in (by_label, cri.PodSandboxFilter(id=self._sandbox)):
            request = cri.ListPodSandboxRequest(filter=narrowed)
            found = [one.id for one in (await self._runtime.ListPodSandbox(request, timeout=_CALL_S)).items]
            expect(found == [self._sandbox], f"listed are {found}")

    async def _create(self) -> None:
        if not self._image:
            self._bench.skip("there is no image to run")
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="kit", attempt=3),
            image=cri.ImageSpec(image=self._image),
            command=["sleep", "1000"],
            labels=dict(self._config.labels),
            log_path="cri-kit.log",
        )
        config.linux.SetInParent()
        request = cri.CreateContainerRequest(pod_sandbox_id=self._sandbox, config=config, sandbox_config=self._config)
        self._container = (await self._runtime.CreateContainer(request, timeout=_CALL_S)).container_id
        expect(self._container, "the id is empty")
        status = await self._status()
        expect(status.state == cri.CONTAINER_CREATED, f"the state is {_state(status)}")
        expect(status.metadata == config.metadata, f"the metadata is {status.metadata}")
        expect(status.started_at == 0, "started_at is told before it started")

    async def _status(self) -> cri.ContainerStatus:
        request = cri.ContainerStatusRequest(container_id=self._container)
        return (await self._runtime.ContainerStatus(request, timeout=_CALL_S)).status

    async def _list_container(self) -> None:
        narrowed = cri.ContainerFilter(label_selector=dict(self._config.labels), pod_sandbox_id=self._sandbox)
        request = cri.ListContainersRequest(filter=narrowed)
        found = (await self._runtime.ListContainers(request, timeout=_CALL_S)).containers
        expect([one.id for one in found] == [self._container], f"listed are {[one.id for one in found]}")
        expect(found[0].pod_sandbox_id == self._sandbox, "it is not listed with its sandbox")

    async def _exec(self) -> None:
        request = cri.ExecSyncRequest(container_id=self._container, cmd=["echo", "kit"], timeout=10)
        said = await self._runtime.ExecSync(request, timeout=_CALL_S)
        expect((said.exit_code, said.stdout) == (0, b"kit\n"), f"echo ended with {said.exit_code}: {said.stdout!r}")
        request = cri.ExecSyncRequest(container_id=self._container, cmd=["false"], timeout=10)
        failed = await self._runtime.ExecSync(request, timeout=_CALL_S)
        expect(failed.exit_code == 1, f"false ended with {failed.exit_code}")

    async def _exited(self) -> cri.ContainerStatus:
        for _ in range(_EXIT_LOOKS):
            status = await self._status()
            if status.state == cri.CONTAINER_EXITED:
                return status
            await self._bench.clock.sleep(_EXIT_LOOK_S)
        raise Failure("the container does not become EXITED")

    async def _stop_sandbox(self) -> None:
        request = cri.StopPodSandboxRequest(pod_sandbox_id=self._sandbox)
        await self._runtime.StopPodSandbox(request, timeout=_CALL_S)

    @asynccontextmanager
    async def _cleared(self) -> AsyncIterator[None]:
        """Whatever the steps found, the sandbox goes; a runtime that can't even do that has failed a step already."""
        try:
            yield
        finally:
            try:
                await self._stop_sandbox()
                request = cri.RemovePodSandboxRequest(pod_sandbox_id=self._sandbox)
                await self._runtime.RemovePodSandbox(request, timeout=_CALL_S)
            except grpc.aio.AioRpcError as err:
                self._bench.record("clearing up", self._sandbox, err)


async def _expect_failure(call: grpc.aio.Call) -> None:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError:
        return
    raise Failure("it succeeded")


def _state(status: cri.ContainerStatus) -> str:
    return cri.ContainerState.Name(status.state)
