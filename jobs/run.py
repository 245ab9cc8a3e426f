"""`spark-submit jobs/run.py [options]`: the command `bitstorm run`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
