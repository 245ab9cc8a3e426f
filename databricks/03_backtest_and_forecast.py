# Databricks notebook source
# MAGIC %md
# MAGIC # Bitstorm 3 of 3: back-test and forecast
# MAGIC
# MAGIC First the question whether the forecast is any good, then the next 24 hours and the
# MAGIC report. `01_ingest_and_indicators` has the notes on compute, packages and workspace.
# MAGIC **Not tried on Databricks.**

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

import pandas as pd

import bitstorm

PARAMETERS = {
    "workspace": "/local_disk0/bitstorm",  # a folder on the driver's disk
    "volume": "",  # where bitstorm.tar is kept, such as /Volumes/main/bitcoin/files
    "folds": "5",
    "epochs": "30",  # of a fold, at most
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
# MAGIC On a new cluster it comes from the volume, as the second notebook left it.
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
settings = {"backtest.folds": int(given["folds"]), "training.epochs": int(given["epochs"])}
ws = bitstorm.open_workspace(workspace, settings, environ=os.environ, quiet=True)
print(ws.source)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Back-test
# MAGIC
# MAGIC Each fold fits the network and the baselines on its own past. A fold is a Spark task.

# COMMAND ----------

backtest = ws.backtest()
print(backtest.headline)
models = pd.DataFrame({name: vars(one) for name, one in backtest.models.items()}).T
show(models.rename_axis("model").reset_index())
if show is not print:
    show(backtest.plot_folds())
    show(backtest.plot_coverage())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Forecast
# MAGIC
# MAGIC The newest run that passed the gate forecasts the next 24 hours. Every forecast is
# MAGIC logged before its outcome.

# COMMAND ----------

forecast = ws.forecast()
print(forecast)
show(ws.forecasts.to_pandas().tail(24))
if show is not print:
    show(forecast.plot())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Report
# MAGIC
# MAGIC `dashboard.html` is one file that a browser opens without a network.

# COMMAND ----------

ws.report()
if volume:
    for file in sorted(ws.path.glob("reports/*")):
        shutil.copyfile(file, Path(volume, file.name))
        print(Path(volume, file.name))

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
print(forecast.verdict)
