"""Price histories from CSV files of any dialect, as batches."""
