"""The channel protocols of exec, attach and port-forward over WebSocket: which there are, and their framing.

Every message is one channel number and data. `base64` protocols carry text: the number as one digit, then base64.
v5 adds a close message: channel 255, then the number of the channel that the client has finished.
Source: Kubernetes remotecommand constants; the channel numbers are facts of that protocol.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
V4_BASE64 = "v4.base64.channel.k8s.io"
V1 = "channel.k8s.io"
V1_BASE64 = "base64.channel.k8s.io"
EXEC_PROTOCOLS = (V5, V4, V4_BASE64, V1, V1_BASE64)

PORT_FORWARD_V4 = "v4.channel.k8s.io"
PORT_FORWARD_V4_BASE64 = "v4.base64.channel.k8s.io"
PORT_FORWARD_SPDY = "SPDY/3.1+portforward.k8s.io"
PORT_FORWARD_PROTOCOLS = (PORT_FORWARD_SPDY, PORT_FORWARD_V4, PORT_FORWARD_V4_BASE64)


class ChannelError(ValueError):
    """A message that the channel protocol does not allow."""


@dataclass(frozen=True, slots=True)
class ChannelProtocol:
    """How messages of one negotiated protocol look."""

    name: str

    @property
    def base64(self) -> bool:
        """Messages are text."""
        return "base64" in self.name

    @property
    def has_close(self) -> bool:
        """The client can finish one channel without ending the connection."""
        return self.name == V5

    @property
    def has_status(self) -> bool:
        """The error channel carries a Status in JSON; before v4 it carried text, and only on failure."""
        return self.name in (V5, V4, V4_BASE64)

    def encode(self, channel: int, data: bytes) -> bytes:
        """One message; send it as text where the protocol is base64."""
        if self.base64:
            return b"%d" % channel + base64.b64encode(data)
        return bytes((channel,)) + data

    def decode(self, message: bytes) -> tuple[int, bytes]:
        """Channel and data of one message. Raises ChannelError when it is empty or malformed."""
        if not message:
            raise ChannelError("message is empty, expected a channel number")
        if not self.base64:
            return message[0], message[1:]
        try:
            return int(message[:1]), base64.b64decode(message[1:], validate=True)
        except (ValueError, binascii.Error) as err:
            raise ChannelError(f"message is no channel digit followed by base64: {err}") from err


def choose_protocol(offered: Sequence[str], supported: Sequence[str]) -> str | None:
    """The first supported protocol, in our order of preference, that the client offers; None if there is none."""
    return next((name for name in supported if name in offered), None)
