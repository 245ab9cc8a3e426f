"""The only room that starts Spark: its Java, its session, and the meaning of its failures."""

from bitstorm.spark.environment import prefer_installed_pyspark

# Before any module imports pyspark: later is too late.
prefer_installed_pyspark()
