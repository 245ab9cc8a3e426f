"""`spark-submit jobs/tune.py [options]`: the command `bitstorm tune`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
