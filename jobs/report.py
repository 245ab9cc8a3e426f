"""`spark-submit jobs/report.py [options]`: the command `bitstorm report`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
