"""`python -m tiphys_kubelet`."""

import sys

from tiphys_kubelet.main import main

sys.exit(main())
