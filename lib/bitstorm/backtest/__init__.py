"""Folds in time, the gate of runs, the log of forecasts, tuning, and the checks of all these."""
