"""python -m tiphys_apiserver."""

import gc
import sys

# Imports make objects that stay; looking for garbage among them takes 40 ms. quiet_collector begins to look again.
gc.disable()

from tiphys_apiserver.main import main  # noqa: E402

sys.exit(main())
