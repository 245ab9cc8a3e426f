"""Runs the notebooks from top to bottom and stores their outputs.

`scripts/notebooks` runs it. A test runs them again and compares the kinds of outputs, and the stamp
in their metadata: the hash of the code cells, the date of the run and the version.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

import bitstorm

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SECONDS_A_CELL = 600


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_hash(notebook: Any) -> str:
    """The SHA-256 of the code cells; texts can change without a new run."""
    code = "\0".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(code.encode()).hexdigest()


def executed(path: Path, base: Path) -> Any:
    """The notebook with the outputs of a run in the empty folder `base`, and its stamp.

    Paths in the outputs begin with `…` instead of `base`, addresses of objects are left out, and
    pictures have 256 colours. Raises CellExecutionError where a cell fails.
    """
    place = base / "notebooks"
    place.mkdir(parents=True)
    notebook = nbformat.read(shutil.copy(path, place), as_version=4)
    began = time.monotonic()
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_A_CELL,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(place)}},
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["bitstorm"] = {
        "code": code_hash(notebook),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(time.monotonic() - began),
        "version": bitstorm.__version__,
    }
    for output in [output for cell in code_cells(notebook) for output in cell.outputs]:
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = small(data["image/png"])
    text = nbformat.writes(notebook).replace(str(base), "…")
    return nbformat.reads(re.sub(r" at 0x[0-9a-f]+", "", text), as_version=4)


def small(png: str) -> str:
    """The picture with 256 colours, a third of the bytes; both in Base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    with io.BytesIO() as stream:
        picture.quantize(256, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
        return base64.b64encode(stream.getvalue()).decode()


def main(arguments: Sequence[str]) -> None:
    for path in map(Path, arguments or sorted(map(str, FOLDER.glob("*.ipynb")))):
        with tempfile.TemporaryDirectory() as base:
            # No kernel and no settings of the user's own take part.
            os.environ.update(JUPYTER_DATA_DIR=f"{base}/jupyter", IPYTHONDIR=f"{base}/ipython")
            notebook = executed(path, Path(base).resolve() / "project")
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        size, seconds = path.stat().st_size / 1e6, notebook.metadata["bitstorm"]["seconds"]
        print(f"{path.name}: {seconds} s, {size:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
