"""`import`: a price history of the user's own → a batch in the landing folder."""

from __future__ import annotations

from bitstorm.collect.csv_import import importer
from bitstorm.collect.csv_import.importer import Imported, ImportOptions, Preview, Reading
from bitstorm.context import Context
from bitstorm.core.sidecar import Origin


def import_file(context: Context, wanted: ImportOptions) -> Imported:
    """Land the file's rows, every one of them, for `ingest` to judge."""
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
    """What the first rows would be taken as; nothing is written."""
    return importer.preview(wanted.file, _reading(context, wanted))


def _reading(context: Context, wanted: ImportOptions) -> Reading:
    return importer.read_options(
        wanted,
        daily_switch=context.settings.import_.daily_switch,
        vs_currency=context.settings.source.vs_currency,
    )
