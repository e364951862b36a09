"""Having a container's image on the node, as its pull policy says.

Presence is remembered, so a start asks the runtime once for an image and not once for a pod. The memory is dropped when
the runtime refuses to make a container from the image, which is how an image that was removed by hand is noticed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tiphys.api.core.v1.container_pb2 import Container
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys_component.clock import Clock
from tiphys_cri.containerd import normalized_name
from tiphys_cri.errors import CRIError
from tiphys_cri.interface import ImageService

ERR_IMAGE_PULL = "ErrImagePull"
IMAGE_PULL_BACKOFF = "ImagePullBackOff"
ERR_NEVER_PULL = "ErrImageNeverPull"
INVALID_IMAGE_NAME = "InvalidImageName"
BACKOFF_BASE_S = 10.0
BACKOFF_CAP_S = 300.0
MAX_PARALLEL_PULLS = 4
# [host[:port]/]path[:tag][@digest]; only the host may have capitals. Source: the grammar of the distribution project.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@{_DIGEST})?", re.ASCII)


class ImageError(Exception):
    """The image is not here and can't be had; `reason` is what the container's status says."""

    def __init__(self, reason: str, message: str, retry_at: datetime) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_at = retry_at


@dataclass(frozen=True, slots=True)
class PulledImage:
    """The reference to make containers from, and how it was had: took_s is None when it was here already."""

    ref: str
    took_s: float | None = None
    size_bytes: int = 0
    uid: int | None = None
    username: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    delay_s: float
    until: datetime
    message: str


def pull_policy(container: Container) -> str:
    """The container's policy; without one Always for the tag latest and IfNotPresent for others."""
    if container.imagePullPolicy:
        return container.imagePullPolicy
    return "Always" if normalized_name(container.image).endswith(":latest") else "IfNotPresent"


def registry_of(image: str) -> str:
    """The host of an image's registry."""
    return normalized_name(image).split("/", 1)[0]


def auth_for(image: str, secrets: Iterable[Secret]) -> cri.AuthConfig | None:
    """The first credentials among the pull secrets that are for the image's registry."""
    for secret in secrets:
        for server, entry in _entries(secret).items():
            if _matches(server, normalized_name(image)):
                return _auth(entry)
    return None


def _entries(secret: Secret) -> Mapping[str, Any]:
    for key, inner in ((".dockerconfigjson", True), (".dockercfg", False)):
        if key in secret.data:
            try:
                parsed = json.loads(secret.data[key])
                entries = parsed.get("auths", {}) if inner else parsed
                return entries if isinstance(entries, dict) else {}
            except (ValueError, AttributeError):
                return {}  # a secret that holds something else gives no credentials; the pull says what it lacks
    return {}


def _matches(server: str, image: str) -> bool:
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    if bare in ("index.docker.io", "index.docker.io/v1", "docker.io"):
        return image.startswith("docker.io/")
    return image == bare or image.startswith(bare + "/")


def _auth(entry: Mapping[str, Any]) -> cri.AuthConfig:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if not username and entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return cri.AuthConfig(auth=str(entry["auth"]))
    return cri.AuthConfig(username=username, password=password, identity_token=str(entry.get("identitytoken") or ""))


class ImagePuller:
    """The node's images; pulls of one image are one pull, and at most MAX_PARALLEL_PULLS run at once."""

    def __init__(self, images: ImageService, clock: Clock) -> None:
        self._images = images
        self._clock = clock
        self._present: dict[str, PulledImage] = {}
        self._failures: dict[str, _Failure] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        # Counts finished pulls by image and credentials: who waited for one takes its result.
        self._finished: dict[tuple[str, bytes], int] = {}
        self._slots = asyncio.Semaphore(MAX_PARALLEL_PULLS)

    def needs_pull(self, container: Container) -> bool:
        """The policy or the memory demands a look beyond what is known to be here."""
        return pull_policy(container) == "Always" or container.image not in self._present

    def back_off(self, container: Container) -> ImageError | None:
        """Why the image is not asked for now."""
        failure = self._failures.get(container.image)
        if failure is None or self._clock.now() >= failure.until:
            return None
        message = f'Back-off pulling image "{container.image}": {ERR_IMAGE_PULL}: {failure.message}'
        return ImageError(IMAGE_PULL_BACKOFF, message, failure.until)

    def check_name(self, image: str) -> None:
        """Raises ImageError if no image can have the name."""
        if _REFERENCE.fullmatch(image) is None:
            message = (
                f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
                "invalid reference format"
            )
            raise ImageError(INVALID_IMAGE_NAME, message, self._clock.now() + timedelta(seconds=BACKOFF_CAP_S))

    async def present(self, container: Container) -> PulledImage | None:
        """The image if it is here and the policy is content with that."""
        if pull_policy(container) == "Always":
            return None
        known = self._present.get(container.image)
        if known is not None:
            return known
        image = await self._images.image_status(container.image)
        if image is None:
            return None
        self._present[container.image] = found = _pulled(image, image.id, None)
        return found

    async def pull(self, container: Container, secrets: Iterable[Secret]) -> PulledImage:
        """Fetches the image. Raises ImageError, and CRIError when the runtime is not there."""
        image = container.image
        if pull_policy(container) == "Never":
            message = f'Container image "{image}" is not present with pull policy of Never'
            raise ImageError(ERR_NEVER_PULL, message, self._clock.now() + timedelta(seconds=BACKOFF_BASE_S))
        auth = auth_for(image, secrets)
        key = (image, auth.SerializeToString() if auth is not None else b"")
        before = self._finished.get(key, 0)
        async with self._locks.setdefault(image, asyncio.Lock()), self._slots:
            if self._finished.get(key, 0) == before:
                try:
                    return await self._pull(image, auth)
                finally:
                    self._finished[key] = before + 1
            failure = self._failures.get(image)
            if failure is not None:
                raise ImageError(ERR_IMAGE_PULL, failure.message, failure.until)
            return self._present[image]

    async def _pull(self, image: str, auth: cri.AuthConfig | None) -> PulledImage:
        started = self._clock.monotonic()
        try:
            ref = await self._images.pull_image(image, auth=auth)
            status = await self._images.image_status(ref)
        except CRIError as err:
            raise self._failed(image, err) from err
        self._failures.pop(image, None)
        self._present[image] = _pulled(status or cri.Image(id=ref), ref, None)
        return _pulled(status or cri.Image(id=ref), ref, self._clock.monotonic() - started)

    def forget(self, image: str) -> None:
        """The runtime does not have the image after all."""
        self._present.pop(image, None)

    def _failed(self, image: str, err: CRIError) -> ImageError:
        before = self._failures.get(image)
        delay_s = min(before.delay_s * 2, BACKOFF_CAP_S) if before is not None else BACKOFF_BASE_S
        until = self._clock.now() + timedelta(seconds=delay_s)
        self._failures[image] = _Failure(delay_s, until, err.wire_text)
        return ImageError(ERR_IMAGE_PULL, err.wire_text, until)


def _pulled(image: cri.Image, ref: str, took_s: float | None) -> PulledImage:
    return PulledImage(
        ref=ref,
        took_s=took_s,
        size_bytes=image.size,
        uid=image.uid.value if image.HasField("uid") else None,
        username=image.username,
    )
