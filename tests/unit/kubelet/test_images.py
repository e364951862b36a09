"""Pull policies, credentials, back-off and shared pulls."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_component.clock import FakeClock
from tiphys_cri.fake import FakeImages
from tiphys_kubelet.runtime.images import ImageError, ImagePuller, auth_for, pull_policy


@pytest.mark.parametrize(
    ("image", "policy", "expected"),
    [
        ("busybox", "", "Always"),
        ("busybox:latest", "", "Always"),
        ("busybox:1", "", "IfNotPresent"),
        ("busybox@sha256:00", "", "IfNotPresent"),
        ("busybox", "Never", "Never"),
    ],
)
def test_policy(image: str, policy: str, expected: str) -> None:
    assert pull_policy(Container(image=image, imagePullPolicy=policy)) == expected


def secret_for(server: str, **entry: str) -> Secret:
    """A pull secret of one registry."""
    return Secret(data={".dockerconfigjson": json.dumps({"auths": {server: entry}}).encode()})


def test_credentials_are_found_by_registry() -> None:
    encoded = base64.b64encode(b"me:pass").decode()
    secrets = [secret_for("other.example", username="x"), secret_for("https://reg.example/", auth=encoded)]
    found = auth_for("reg.example/team/app:1", secrets)
    assert found is not None
    assert (found.username, found.password) == ("me", "pass")
    assert auth_for("busybox", secrets) is None
    hub = auth_for("busybox", [secret_for("https://index.docker.io/v1/", username="u", password="p")])
    assert hub is not None
    assert hub.username == "u"


def test_secret_that_holds_no_configuration_gives_nothing() -> None:
    assert auth_for("busybox", [Secret(data={".dockerconfigjson": b"garbage"}), Secret()]) is None


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ("busybox", True),
        ("tiphys.dev/httpd:1", True),
        ("localhost:5000/team/app_x:v1.2-rc@sha256:" + "0" * 64, True),
        ("[::1]:5000/app", True),
        ("sha256:" + "a" * 64, True),
        ("No/such::1", False),
        ("Busybox", False),
        ("busybox:", False),
        ("a b", False),
        ("busybox@sha256:short", False),
        ("", False),
    ],
)
def test_names_that_no_image_can_have_are_told_from_others(image: str, fits: bool) -> None:
    puller = ImagePuller(FakeImages(), FakeClock())
    if fits:
        puller.check_name(image)
        return
    with pytest.raises(ImageError, match="invalid reference format") as refused:
        puller.check_name(image)
    assert refused.value.reason == "InvalidImageName"


class CountingImages(FakeImages):
    """Counts pulls, which take a moment."""

    pulls = 0

    async def pull_image(self, image: str, **more: object) -> str:
        self.pulls += 1
        await asyncio.sleep(0)
        return await super().pull_image(image)


async def test_pulls_of_one_image_are_one_pull() -> None:
    images = CountingImages(registry={"app:1"})
    puller = ImagePuller(images, FakeClock())
    container = Container(image="app:1", imagePullPolicy="Always")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(puller.pull(container, ())) for _ in range(5)]
    assert images.pulls == 1
    assert len({task.result().ref for task in tasks}) == 1


async def test_failed_pulls_back_off_doubling_to_five_minutes() -> None:
    clock = FakeClock()
    puller = ImagePuller(FakeImages(), clock)
    container = Container(image="none:1")
    delays = []
    for _ in range(7):
        with pytest.raises(ImageError) as failed:
            await puller.pull(container, ())
        assert failed.value.reason == "ErrImagePull"
        delays.append((failed.value.retry_at - clock.now()).total_seconds())
        held = puller.back_off(container)
        assert held is not None
        assert held.reason == "ImagePullBackOff"
        clock.advance(delays[-1])
        assert puller.back_off(container) is None
    assert delays == [10, 20, 40, 80, 160, 300, 300]


async def test_presence_is_asked_once_and_forgotten_on_demand() -> None:
    images = FakeImages()
    images.add("app:1")
    puller = ImagePuller(images, FakeClock())
    container = Container(image="app:1")
    assert await puller.present(container) is not None
    images.present.clear()
    assert await puller.present(container) is not None
    puller.forget("app:1")
    assert await puller.present(container) is None
