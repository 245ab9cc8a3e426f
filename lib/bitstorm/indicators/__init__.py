"""The grid, its indicators, bars and statistics, from prices. Only `update` reads files."""
