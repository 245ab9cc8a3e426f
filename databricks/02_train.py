# Databricks notebook source
# MAGIC %md
# MAGIC # Bitstorm 2 of 3: train the network
# MAGIC
# MAGIC Keras trains an LSTM on windows of log returns; Petastorm's Spark converter serves them.
# MAGIC `01_ingest_and_indicators` has the notes on compute, packages and workspace.
# MAGIC **Not tried on Databricks.**
# MAGIC
# MAGIC The training runs on the driver. One node is enough: an epoch of a year of hours takes
# MAGIC seconds.

# COMMAND ----------

# MAGIC %pip install --no-deps -r requirements.txt
# MAGIC %pip install --no-deps ../dist/bitstorm-0.1.0-py3-none-any.whl

# COMMAND ----------

# MAGIC %restart_python

# COMMAND ----------

# MAGIC %md
# MAGIC ## Parameters
# MAGIC
# MAGIC Widgets where `dbutils` exists, arguments of the command line elsewhere.

# COMMAND ----------

import argparse
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import bitstorm

PARAMETERS = {
    "workspace": "/local_disk0/bitstorm",  # a folder on the driver's disk
    "volume": "",  # where bitstorm.tar is kept, such as /Volumes/main/bitcoin/files
    "epochs": "30",
}
if "dbutils" in globals():
    for name, default in PARAMETERS.items():
        dbutils.widgets.text(name, default)
    given = {name: dbutils.widgets.get(name) for name in PARAMETERS}
else:
    parser = argparse.ArgumentParser()
    for name, default in PARAMETERS.items():
        parser.add_argument(f"--{name}", default=default)
    given = vars(parser.parse_args())
show = globals().get("display", print)  # tables; pictures only where `display` exists

# COMMAND ----------

# MAGIC %md
# MAGIC ## Open the workspace
# MAGIC
# MAGIC On a new cluster it comes from the volume, as the first notebook left it.
# MAGIC
# MAGIC Settings also come from variables such as `BITSTORM__TRAINING__UNITS`, as on the command
# MAGIC line.

# COMMAND ----------

workspace, volume = Path(given["workspace"]), given["volume"]
archive = Path(volume, "bitstorm.tar")
if volume and archive.exists() and not workspace.exists():
    with tarfile.open(archive) as tar:
        # Python has this filter since 3.11.4.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(workspace)
settings = {"training.epochs": int(given["epochs"])}
ws = bitstorm.open_workspace(workspace, settings, environ=os.environ, quiet=True)
print(ws.source)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Train

# COMMAND ----------

run = ws.train()
print(run)
show(run.history)
if show is not print:
    show(run.plot())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Keep the workspace
# MAGIC
# MAGIC One file, written from its beginning to its end: that is what a volume can do.

# COMMAND ----------

if volume:
    with tempfile.TemporaryDirectory() as scratch:
        made = shutil.make_archive(f"{scratch}/bitstorm", "tar", workspace)
        shutil.copyfile(made, f"{archive}.part")
    Path(f"{archive}.part").replace(archive)
ws.close()
print(f"kept: run {run.name}")
