"""python -m tiphys_controller_manager"""

import sys

from tiphys_controller_manager.main import main

if __name__ == "__main__":
    sys.exit(main())
