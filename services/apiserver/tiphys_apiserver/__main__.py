"""python -m tiphys_apiserver."""

import sys

from tiphys_apiserver.main import main

sys.exit(main())
