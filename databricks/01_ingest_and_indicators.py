# Databricks notebook source
# MAGIC %md
# MAGIC # Bitstorm 1 of 3: prices and indicators
# MAGIC
# MAGIC Prices come from the simulated market, from CoinGecko, or from a CSV file in a volume.
# MAGIC They become one Petastorm data set, their indicators another.
# MAGIC **Not tried on Databricks.** The tests run this file as plain Python, and with stand-ins
# MAGIC for `dbutils` and `display`.
# MAGIC
# MAGIC - **Compute**: one node, dedicated to one user, Python 3.11 or 3.12. Serverless and
# MAGIC   shared compute have Spark Connect, where client and server must see the workspace under
# MAGIC   one path.
# MAGIC - **Packages**: the next cell installs `requirements.txt`, which lies beside this file, and
# MAGIC   the wheel of `scripts/package`. The bundle (`databricks.yml`) brings both here.
# MAGIC - **Workspace**: a folder on the driver's disk. A volume has no hard links and no locks,
# MAGIC   so it cannot hold one. The last cell writes the workspace into the volume as one file,
# MAGIC   `bitstorm.tar`; a later cluster continues from it.

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
    "source": "simulated",  # or coingecko
    "csv": "",  # a price file, such as one in the volume; empty: fetch
    "days": "365",  # of history to fetch
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
# MAGIC A new cluster has an empty disk: it continues from the file in the volume.
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
settings = {
    "source.mode": "csv" if given["csv"] else given["source"],
    "backfill.days": int(given["days"]),
}
ws = bitstorm.open_workspace(workspace, settings, environ=os.environ, quiet=True)
print(ws.source)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Prices
# MAGIC
# MAGIC CSV batches first, then the data set `prices`. A CSV file in a volume is only read.

# COMMAND ----------

if given["csv"]:
    print(ws.import_file(given["csv"], format="auto"))
else:
    print(ws.backfill())
print(ws.ingest())
show(ws.prices.to_pandas(["timestamp", "price", "month"]).tail(5))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Indicators
# MAGIC
# MAGIC Spark computes them over trailing windows of a regular grid.

# COMMAND ----------

print(ws.indicators())
show(ws.indicators.to_pandas().tail(5))
if show is not print:
    show(ws.indicators.plot_price())

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
print(f"{ws.indicators.rows:,} points of the grid")
