"""Data sets on disk: landing batches in, snapshots out, and what was refused."""

import bitstorm.spark  # noqa: F401 - chooses the pyspark that petastorm imports
