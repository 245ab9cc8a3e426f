"""`spark-submit jobs/doctor.py [options]`: the command `bitstorm doctor`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
