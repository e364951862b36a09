"""A module that no zygote may load: importing it leaves a thread."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
