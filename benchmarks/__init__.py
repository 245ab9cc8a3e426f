"""Side-by-side measurements: `python -m benchmarks NAME [--rows N] [--json]`."""
