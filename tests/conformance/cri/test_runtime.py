"""What the kubelet relies on of any runtime (tiphys_cri.interface), call by call."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

import pytest

from tests.conformance.cri.subject import Subject
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_cri.errors import CRIError, CRINotFound, CRITimeout
from tiphys_cri.interface import RuntimeEventType


def sandbox_config(subject: Subject) -> cri.PodSandboxConfig:
    """A sandbox of its own identity."""
    uid = str(uuid.uuid4())
    metadata = cri.PodSandboxMetadata(name=f"pod-{uid[:8]}", namespace="default", uid=uid, attempt=0)
    config = cri.PodSandboxConfig(
        metadata=metadata, hostname="pod", log_directory=str(subject.logs), labels={"uid": uid}
    )
    config.linux.SetInParent()
    return config


async def make_container(subject: Subject, *command: str) -> tuple[str, str]:
    """A sandbox and a container in it, not started."""
    config = sandbox_config(subject)
    sandbox_id = await subject.runtime.run_pod_sandbox(config)
    image = await subject.images.image_status(subject.image)
    assert image is not None
    container = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name="app", attempt=2),
        image=cri.ImageSpec(image=image.id),
        command=command or ("sleep", "1000"),
        labels={"role": "test"},
        annotations={"note": "kept"},
        log_path="app.log",
    )
    container.linux.SetInParent()
    return sandbox_id, await subject.runtime.create_container(sandbox_id, container, config)


async def until_exited(subject: Subject, container_id: str) -> cri.ContainerStatus:
    """Its status after its end."""
    for _ in range(500):
        status = await subject.runtime.container_status(container_id)
        if status.state == cri.CONTAINER_EXITED:
            return status
        await asyncio.sleep(0.01)
    raise AssertionError("the container does not exit")


async def test_it_says_who_it_is_and_that_it_is_ready(subject: Subject) -> None:
    assert (await subject.runtime.version()).runtime_name
    conditions = {c.type: c.status for c in (await subject.runtime.status()).conditions}
    assert conditions["RuntimeReady"]
    assert conditions["NetworkReady"]


async def test_sandbox_has_an_address_and_keeps_its_identity(subject: Subject) -> None:
    config = sandbox_config(subject)
    sandbox_id = await subject.runtime.run_pod_sandbox(config)
    status = await subject.runtime.pod_sandbox_status(sandbox_id)
    assert status.state == cri.SANDBOX_READY
    assert status.network.ip
    assert status.metadata == config.metadata
    assert dict(status.labels) == dict(config.labels)


async def test_two_sandboxes_have_different_addresses(subject: Subject) -> None:
    ids = [await subject.runtime.run_pod_sandbox(sandbox_config(subject)) for _ in range(2)]
    first, second = [(await subject.runtime.pod_sandbox_status(one)).network.ip for one in ids]
    assert first != second


async def test_lists_are_narrowed_by_labels(subject: Subject) -> None:
    config = sandbox_config(subject)
    sandbox_id = await subject.runtime.run_pod_sandbox(config)
    await subject.runtime.run_pod_sandbox(sandbox_config(subject))
    found = await subject.runtime.list_pod_sandboxes({"uid": config.metadata.uid})
    assert [one.id for one in found] == [sandbox_id]
    assert await subject.runtime.list_containers({"role": "nobody"}) == []


async def test_stopping_and_removing_a_sandbox_may_be_repeated(subject: Subject) -> None:
    sandbox_id = await subject.runtime.run_pod_sandbox(sandbox_config(subject))
    for _ in range(2):
        await subject.runtime.stop_pod_sandbox(sandbox_id)
    assert (await subject.runtime.pod_sandbox_status(sandbox_id)).state == cri.SANDBOX_NOTREADY
    for _ in range(2):
        await subject.runtime.remove_pod_sandbox(sandbox_id)
    with pytest.raises(CRINotFound):
        await subject.runtime.pod_sandbox_status(sandbox_id)


async def test_container_goes_through_its_life(subject: Subject) -> None:
    sandbox_id, container_id = await make_container(subject)
    created = await subject.runtime.container_status(container_id)
    assert (created.state, created.started_at) == (cri.CONTAINER_CREATED, 0)
    await subject.runtime.start_container(container_id)
    running = await subject.runtime.container_status(container_id)
    assert running.state == cri.CONTAINER_RUNNING
    assert running.started_at >= running.created_at > 0
    assert running.metadata.attempt == 2
    assert running.annotations["note"] == "kept"
    assert running.log_path == str(subject.logs / "app.log")
    listed = await subject.runtime.list_containers({"role": "test"})
    assert [(one.id, one.pod_sandbox_id) for one in listed] == [(container_id, sandbox_id)]
    for _ in range(2):
        await subject.runtime.stop_container(container_id, 0)
    stopped = await subject.runtime.container_status(container_id)
    assert (stopped.state, stopped.exit_code) == (cri.CONTAINER_EXITED, 137)
    assert stopped.finished_at >= stopped.started_at
    for _ in range(2):
        await subject.runtime.remove_container(container_id)
    with pytest.raises(CRINotFound):
        await subject.runtime.container_status(container_id)


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [(["true"], 0, "Completed"), (["false"], 1, "Error"), (["sh", "-c", "exit 3"], 3, "Error")],
    ids=["true", "false", "exit-3"],
)
async def test_container_that_ends_tells_its_code(subject: Subject, command: list[str], code: int, reason: str) -> None:
    _, container_id = await make_container(subject, *command)
    await subject.runtime.start_container(container_id)
    status = await until_exited(subject, container_id)
    assert (status.exit_code, status.reason) == (code, reason)


async def test_D34_a_running_container_takes_new_limits(subject: Subject) -> None:
    _, container_id = await make_container(subject)
    await subject.runtime.start_container(container_id)
    before = await subject.runtime.container_status(container_id)
    for shares in (512, 256):
        wanted = cri.LinuxContainerResources(cpu_shares=shares, cpu_period=100_000, cpu_quota=50_000)
        await subject.runtime.update_container_resources(container_id, wanted)
    after = await subject.runtime.container_status(container_id)
    assert (after.state, after.started_at) == (cri.CONTAINER_RUNNING, before.started_at)
    if after.HasField("resources"):
        # containerd 1.6 does not say; the kubelet asks the kernel.
        assert (after.resources.linux.cpu_shares, after.resources.linux.cpu_quota) == (256, 50_000)
    with pytest.raises(CRINotFound):
        await subject.runtime.update_container_resources("none", wanted)


async def test_program_that_does_not_exist_is_a_start_error(subject: Subject) -> None:
    _, container_id = await make_container(subject, "/no/such/program")
    with pytest.raises(CRIError):
        await subject.runtime.start_container(container_id)
    status = await until_exited(subject, container_id)
    assert (status.exit_code, status.reason) == (128, "StartError")


async def test_stopping_a_sandbox_ends_its_containers(subject: Subject) -> None:
    sandbox_id, container_id = await make_container(subject)
    await subject.runtime.start_container(container_id)
    await subject.runtime.stop_pod_sandbox(sandbox_id)
    assert (await until_exited(subject, container_id)).exit_code == 137


async def test_command_in_a_container_answers(subject: Subject) -> None:
    _, container_id = await make_container(subject)
    await subject.runtime.start_container(container_id)
    said = await subject.runtime.exec_sync(container_id, ["echo", "hello"], timeout_s=5)
    assert (said.exit_code, said.stdout) == (0, b"hello\n")
    failed = await subject.runtime.exec_sync(container_id, ["false"], timeout_s=5)
    assert failed.exit_code == 1
    with pytest.raises(CRITimeout):
        await subject.runtime.exec_sync(container_id, ["sleep", "60"], timeout_s=1)
    with pytest.raises(CRIError):
        await subject.runtime.exec_sync(container_id, ["/no/such/program"], timeout_s=5)


async def test_unknown_container_is_not_found(subject: Subject) -> None:
    with pytest.raises(CRINotFound):
        await subject.runtime.start_container("none")
    with pytest.raises(CRINotFound):
        await subject.runtime.container_status("none")
    with pytest.raises(CRINotFound):
        await subject.runtime.exec_sync("none", ["true"], timeout_s=1)


async def test_events_tell_of_starts_and_ends(subject: Subject) -> None:
    _, container_id = await make_container(subject, "sleep", "0.3")
    seen: list[RuntimeEventType] = []

    async def listen() -> None:
        async with aclosing(subject.runtime.events()) as events:
            async for event in events:
                if event.container_id == container_id:
                    seen.append(event.type)
                    if event.type is RuntimeEventType.STOPPED:
                        return

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(listen())
        await asyncio.sleep(0.1)
        await subject.runtime.start_container(container_id)
    assert seen == [RuntimeEventType.STARTED, RuntimeEventType.STOPPED]


async def test_image_that_is_not_there_is_none(subject: Subject) -> None:
    assert await subject.images.image_status("nobody/has:this") is None
    found = await subject.images.image_status(subject.image)
    assert found is not None
    assert "docker.io/library/busybox:latest" in found.repo_tags
    assert found.id in {image.id for image in await subject.images.list_images()}


async def test_pulling_what_is_nowhere_fails(subject: Subject) -> None:
    with pytest.raises(CRIError):
        await subject.images.pull_image("127.0.0.1:1/nobody/has:this")
