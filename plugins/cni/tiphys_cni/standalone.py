"""Does a call's work in the launcher's own process, for when the resident service is away."""

from __future__ import annotations

import os
import sys

from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.skel import run


def main() -> int:
    """`python -m tiphys_cni.standalone PLUGIN`: environment and standard input as the specification says."""
    environment = {k: v for k, v in os.environ.items() if k.startswith("CNI_")}
    try:
        netns_fd = os.open(environment.get("CNI_NETNS", ""), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        netns_fd = -1
    answer = run(PLUGINS[sys.argv[1]], environment, sys.stdin.buffer.read(), netns_fd)
    sys.stdout.buffer.write(answer.stdout)
    sys.stdout.buffer.flush()
    return answer.exit_code


if __name__ == "__main__":
    sys.exit(main())
