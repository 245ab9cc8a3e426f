"""`spark-submit jobs/forecast.py [options]`: the command `bitstorm forecast`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["forecast", *sys.argv[1:]])
