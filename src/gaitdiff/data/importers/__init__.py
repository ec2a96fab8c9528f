"""One file for each way in which users keep their silhouettes; each turns it into a store."""

from gaitdiff.data.importers.datasets import IMPORTERS
from gaitdiff.data.importers.report import Report
from gaitdiff.data.importers.run import import_data

__all__ = ["IMPORTERS", "Report", "import_data"]
