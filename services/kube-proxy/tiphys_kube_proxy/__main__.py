"""`python -m tiphys_kube_proxy`."""

import sys

from tiphys_kube_proxy.main import main

sys.exit(main())
