"""A workspace holds prices of one origin: which waiting batches are of it."""

from __future__ import annotations

from collections.abc import Sequence

from bitstorm.context import Context
from bitstorm.core.sidecar import Origin
from bitstorm.store.landing import Batch, Refused


def of_one_origin(
    ready: Sequence[Batch], bound: Origin | None, context: Context
) -> tuple[Origin, list[Batch], list[Refused]]:
    """The batches that belong to the workspace's origin, and those that do not.

    An unbound workspace takes the origin of its first batch that states one. A file without a
    sidecar states none: whoever dropped it there vouches for it.
    """
    stated = [_origin(batch) for batch in ready]
    origin = bound or next((o for o in stated if o is not None), None)
    if origin is None:
        settings = context.settings.source
        origin = Origin("csv", settings.coin, settings.vs_currency)
    taken = [b for b, o in zip(ready, stated, strict=True) if o in (None, origin)]
    strangers = [
        Refused(
            batch.path,
            batch.sha256,
            "origin",
            f"its sidecar says ({stranger}), the workspace holds ({origin}); "
            "ingest it into another workspace",
        )
        for batch, stranger in zip(ready, stated, strict=True)
        if stranger not in (None, origin)
    ]
    return origin, taken, strangers


def _origin(batch: Batch) -> Origin | None:
    s = batch.sidecar
    return None if s is None else Origin(s.source, s.coin, s.vs_currency)
