"""Does a call's work in the launcher's own process, for when the resident service is away."""

from __future__ import annotations

import sys

from tiphys_cni.registry import PLUGINS
from tiphys_sdk.cni.serve import serve

if __name__ == "__main__":
    # `python -m tiphys_cni.standalone PLUGIN`: environment and standard input as the specification says.
    serve(PLUGINS[sys.argv[1]])
