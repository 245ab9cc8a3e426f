"""`spark-submit jobs/train.py [options]`: the command `bitstorm train`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
