"""`python -m tiphys_cni`."""

import sys

from tiphys_cni.service import main

sys.exit(main())
