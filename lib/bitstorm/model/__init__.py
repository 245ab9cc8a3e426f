"""Windows of the indicators → network → forecast, and how good it is."""
