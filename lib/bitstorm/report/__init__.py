"""Pictures, a summary and a dashboard: pandas frames and plain values in, files' contents out."""
