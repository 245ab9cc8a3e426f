"""The only room that starts Spark: its Java, its session, and the meaning of its failures."""
