"""What every room stands on: errors, time, schema, settings, files on disk. No Spark."""
