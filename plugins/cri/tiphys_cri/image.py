"""ImageService over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from tiphys.thirdparty.cri.v1 import api_pb2 as cri
from tiphys.thirdparty.cri.v1.api_pb2_grpc import ImageServiceStub
from tiphys_cri.errors import CRINotFound
from tiphys_cri.runtime import CALL_TIMEOUT_S, answer

# A pull may move gigabytes; the runtime itself gives up on a pull that makes no progress.
PULL_TIMEOUT_S = 3600.0


class GrpcImageService:
    """Speaks CRI v1 on a channel of `endpoint.channel`; the channel is its owner's to close."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ImageServiceStub(channel)

    async def list_images(self) -> Sequence[cri.Image]:
        """All images of the runtime."""
        call = self._stub.ListImages(cri.ListImagesRequest(), timeout=CALL_TIMEOUT_S)
        return list((await answer(call, "ListImages")).images)

    async def image_status(self, image: str) -> cri.Image | None:
        """One image, None when it is not there."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image))
        response = await answer(self._stub.ImageStatus(request, timeout=CALL_TIMEOUT_S), "ImageStatus")
        return response.image if response.HasField("image") and response.image.id else None

    async def pull_image(
        self, image: str, *, auth: cri.AuthConfig | None = None, sandbox_config: cri.PodSandboxConfig | None = None
    ) -> str:
        """Pulls an image."""
        request = cri.PullImageRequest(image=cri.ImageSpec(image=image), auth=auth, sandbox_config=sandbox_config)
        return (await answer(self._stub.PullImage(request, timeout=PULL_TIMEOUT_S), "PullImage")).image_ref

    async def remove_image(self, image: str) -> None:
        """Removes an image; one that is gone is removed."""
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image))
        try:
            await answer(self._stub.RemoveImage(request, timeout=CALL_TIMEOUT_S), "RemoveImage")
        except CRINotFound:
            return

    async def image_fs_info(self) -> Sequence[cri.FilesystemUsage]:
        """Where images lie."""
        call = self._stub.ImageFsInfo(cri.ImageFsInfoRequest(), timeout=CALL_TIMEOUT_S)
        return list((await answer(call, "ImageFsInfo")).image_filesystems)
