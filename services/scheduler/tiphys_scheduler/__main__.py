"""`python -m tiphys_scheduler`."""

import sys

from tiphys_scheduler.main import main

sys.exit(main())
