"""One file for each way in which users keep their silhouettes; each turns it into a store."""

from gaitdiff.data.importers.datasets import DATASETS
from gaitdiff.data.importers.report import Report
from gaitdiff.data.importers.run import import_data

__all__ = ["DATASETS", "Report", "import_data"]
