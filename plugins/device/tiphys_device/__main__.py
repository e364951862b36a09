"""`python -m tiphys_device`."""

import sys

from tiphys_device.main import main

sys.exit(main())
