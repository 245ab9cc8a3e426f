"""`spark-submit jobs/indicators.py [options]`: the command `bitstorm indicators`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["indicators", *sys.argv[1:]])
