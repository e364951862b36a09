"""The main function of a plugin: one call from environment and standard input to standard output and exit status."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from tiphys_sdk.cni.skel import Answer, Plugin, crashed, run


def serve(plugin: Plugin) -> NoReturn:
    """Does what the runtime asks of the plugin, and ends the process with the exit status of the answer."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("CNI_")}
    answer = answer_to(plugin, environment, sys.stdin.buffer.read())
    sys.stdout.buffer.write(answer.stdout)
    sys.stdout.buffer.flush()
    sys.exit(answer.exit_code)


def answer_to(plugin: Plugin, environment: dict[str, str], stdin: bytes) -> Answer:
    """One call, its network namespace opened; a fault of the plugin's own goes to standard error with its place."""
    try:
        netns_fd = os.open(environment.get("CNI_NETNS", ""), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        netns_fd = -1  # A namespace that is gone: DEL must succeed then, and other verbs say so themselves.
    try:
        return run(plugin, environment, stdin, netns_fd)
    except Exception as err:
        traceback.print_exc()
        return crashed(err)
    finally:
        if netns_fd >= 0:
            os.close(netns_fd)
