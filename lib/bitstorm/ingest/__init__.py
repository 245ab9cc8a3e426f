"""Batches → rows that keep the rules, one observation for each time, and the next prices."""
