"""`spark-submit jobs/backtest.py [options]`: the command `bitstorm backtest`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["backtest", *sys.argv[1:]])
