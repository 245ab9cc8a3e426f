"""`spark-submit jobs/reproduce.py [options]`: the command `bitstorm reproduce`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["reproduce", *sys.argv[1:]])
