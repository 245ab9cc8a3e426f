"""`spark-submit jobs/stats.py [options]`: the command `bitstorm stats`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["stats", *sys.argv[1:]])
