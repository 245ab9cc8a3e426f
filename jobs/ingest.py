"""`spark-submit jobs/ingest.py [options]`: the command `bitstorm ingest`."""

import sys

from bitstorm.cli import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
