"""The only room that starts Spark: its Java, its session, and what its failures mean."""
