"""Weights out of a `.keras` file, with nothing else in it believed.

Such a file is a ZIP with a description of a network, which Keras would build: code of whoever wrote
it (a Lambda layer), or other layers than ours. Here the network is always built by `network.build`;
the file may only hold what that one's own file holds, and gives its weights alone.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from bitstorm.core.errors import ModelError, first_line

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
# Far above any network of ours: what unpacks to more is not one.
_MOST_BYTES = 1 << 30


def load_weights(network: Any, content: bytes) -> None:
    """Put the file's weights into the network. Raises ModelError, its text a reason, where the file
    holds anything that the network's own file would not."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            _check_members(archive)
            _check_config(network, archive.read("config.json"))
        # Keras wants a file with the right ending; this one cannot change after the look at it.
        with tempfile.TemporaryDirectory(prefix="bitstorm-") as folder:
            path = Path(folder) / "weights.keras"
            path.write_bytes(content)
            network.load_weights(path)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(first_line(error)) from None


def _check_members(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if sorted(names) != sorted(MEMBERS):
        strange = [name for name in names if name not in MEMBERS] or names
        raise ModelError(
            f"it holds {', '.join(repr(name) for name in strange[:3]) or 'nothing'}, expected "
            f"just {', '.join(sorted(MEMBERS))}"
        )
    if sum(info.file_size for info in infos) > _MOST_BYTES:
        raise ModelError("it unpacks to more than a gigabyte")


def _check_config(network: Any, text: bytes) -> None:
    """The layers described are those of our network, setting by setting."""
    described = json.loads(text, object_hook=_unnumbered)
    own = json.loads(network.to_json(), object_hook=_unnumbered)
    ours, theirs = own["config"]["layers"], described["config"]["layers"]
    kinds = [[layer["class_name"] for layer in layers] for layers in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise ModelError(f"it describes {', '.join(kinds[1])}, expected {', '.join(kinds[0])}")
    if described["class_name"] != own["class_name"] or described["module"] != own["module"]:
        raise ModelError(f"it describes a {described['module']}.{described['class_name']}")
    for mine, other in zip(ours, theirs, strict=True):
        wrong = [key for key in ("module", "registered_name") if mine[key] != other[key]]
        # Another version of Keras may know more settings; what both know has to be the same.
        common = mine["config"].keys() & other["config"].keys()
        wrong += sorted(key for key in common if mine["config"][key] != other["config"][key])
        if wrong:
            raise ModelError(
                f"its layer {mine['config']['name']} has another {wrong[0]} than the run's settings"
            )


def _unnumbered(item: dict[str, Any]) -> dict[str, Any]:
    """Without the addresses of objects, which Keras notes and which differ by process."""
    return {key: value for key, value in item.items() if key != "shared_object_id"}
