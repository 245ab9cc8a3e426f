"""Price histories from CSV files of any dialect, into batches."""
