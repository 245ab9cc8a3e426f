"""Lines of a batch → typed rows, and which observation of a time stands."""
