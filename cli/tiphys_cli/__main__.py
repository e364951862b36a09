"""python -m tiphys_cli"""

from tiphys_cli.main import main

main()
