"""The base of every room: errors, time, schema, settings, files on disk. No Spark."""
