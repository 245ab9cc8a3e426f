"""What prices come to: the grid, its indicators, bars, statistics. No files, no settings."""
