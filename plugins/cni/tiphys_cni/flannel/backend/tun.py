"""A TUN device: packets that the kernel routes there are read by this process, and what it writes the kernel receives.

Source of numbers: linux/if_tun.h.
"""

from __future__ import annotations

import fcntl
import os
import struct

_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_REQUEST = struct.Struct("16sH22x")


def open_tun(name: str) -> int:
    """A descriptor, not blocking, of the device, which is made where it is missing and stays when the process ends.

    While nobody reads, packets are dropped, but routes by the device live on. Raises OSError: EBUSY while another
    process reads it.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _REQUEST.pack(name.encode(), _IFF_TUN | _IFF_NO_PI))
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except BaseException:
        os.close(fd)
        raise
    return fd
