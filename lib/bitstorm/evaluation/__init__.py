"""Is a forecast good, and how sure is that? Arrays in, numbers out: no files and no Spark."""
