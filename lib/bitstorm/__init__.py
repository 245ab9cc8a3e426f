"""Bitcoin price batches → Spark → Petastorm → LSTM → a forecast you can trust."""

__version__ = "0.1.0"
