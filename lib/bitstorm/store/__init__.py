"""Data sets on disk: landing batches in, snapshots out, and what was refused."""
