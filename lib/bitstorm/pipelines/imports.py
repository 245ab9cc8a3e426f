"""`import`: the user's file with a price history → a batch in the landing folder."""

from __future__ import annotations

from bitstorm.collect.csv_import import importer
from bitstorm.collect.csv_import.importer import Imported, Preview
from bitstorm.collect.csv_import.reading import ImportOptions, Reading, read_options
from bitstorm.context import Context
from bitstorm.core.sidecar import Origin


def import_file(context: Context, wanted: ImportOptions) -> Imported:
    """Land all rows of the file as a batch; `ingest` checks them."""
    settings = context.settings.source
    context.workspace.check(Origin(importer.SOURCE, settings.coin, settings.vs_currency))
    return importer.import_file(
        wanted.file,
        context.workspace.landing,
        _reading(context, wanted),
        coin=settings.coin,
        vs_currency=settings.vs_currency,
    )


def preview(context: Context, wanted: ImportOptions) -> Preview:
    """The first rows as they would be imported; writes nothing."""
    return importer.preview(wanted.file, _reading(context, wanted))


def _reading(context: Context, wanted: ImportOptions) -> Reading:
    return read_options(
        wanted,
        daily_switch=context.settings.import_.daily_switch,
        vs_currency=context.settings.source.vs_currency,
    )
