"""The plugin of docs/adding/cni-plugin.md, as a reader gets it; and the same with one fault."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "adding" / "cni-plugin.md"

# What a fault puts before the last lines of the plugin, where it can replace any function of it.
FAULTS = {
    "says no versions": "import tiphys_sdk.cni.skel as skel\nskel.SUPPORTED_VERSIONS = ()\n",
    "takes any version": (
        "import tiphys_sdk.cni.conf as conf\n"
        "conf.SUPPORTED_VERSIONS = (*conf.SUPPORTED_VERSIONS, '99.0.0')\n"
        "def add(call): return Result()\n"
    ),
    "answers in one version": (
        "old = Result.to_json\ndef to_json(self, version): return old(self, '1.1.0')\nResult.to_json = to_json\n"
    ),
    "says an address it did not set": (
        "from dataclasses import replace\nright = add\n"
        "def add(call):\n"
        "    made = right(call)\n"
        "    return replace(made, ips=(replace(made.ips[0], address='10.201.0.250/24'),))\n"
    ),
    "writes to standard output": (
        "right = add\ndef add(call):\n    print('attaching', flush=True)\n    return right(call)\n"
    ),
    "hangs": "import time\ndef delete(call): time.sleep(600)\n",
    "dies": "import os\ndef check(call): os.kill(os.getpid(), 9)\n",
    "keeps its interface": "def unplug(host): pass\n",
    "keeps its address": "def delete(call): unplug(host_end(call.container_id, call.ifname))\n",
    "fails to delete twice": (
        "right = delete\n"
        "def delete(call):\n"
        "    if host_end(call.container_id, call.ifname) not in links():\n"
        "        raise CNIError(ErrorCode.UNKNOWN_CONTAINER, 'no such attachment')\n"
        "    right(call)\n"
    ),
    "needs the namespace to delete": (
        "right = delete\ndef delete(call):\n    with inside(call.netns_fd): ip('link')\n    right(call)\n"
    ),
    "checks nothing": "def check(call): pass\n",
    "gives one address to all": (
        "from dataclasses import replace\nright = delegate\n"
        "def delegate(call, name, **more):\n"
        "    made = right(call, name, **more)\n"
        "    return made and replace(made, ips=(replace(made.ips[0], address='10.201.0.2/24'),))\n"
    ),
    "collects what is in use": (
        "def collect(call):\n    for name in links():\n        if name.startswith('wire'): unplug(name)\n"
    ),
    "collects nothing": "def collect(call): pass\n",
    "is never ready": "def status(call): raise CNIError(ErrorCode.PLUGIN_NOT_AVAILABLE, 'not yet')\n",
    "forgets a failed ADD": "def add(call): return attach(call, host_end(call.container_id, call.ifname))\n",
}


def write_plugin(folder: Path, fault: str = "") -> Path:
    """The executable `wire` in a folder."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    text = blocks[0].replace("#!/usr/bin/env python3", f"#!{sys.executable} -I")
    broken = FAULTS[fault] if fault else ""
    text = text.replace("if __name__ ==", f"{broken}\nif __name__ ==")
    if "def status" in broken:
        text = text.replace("collect=collect", "collect=collect, status=status")
    path = folder / "wire"
    path.write_text(text)
    path.chmod(0o755)
    return path
