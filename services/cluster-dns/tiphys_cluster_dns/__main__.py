"""`python -m tiphys_cluster_dns`."""

import sys

from tiphys_cluster_dns.main import main

sys.exit(main())
