"""The packed sequence store: one folder of coded frames, a manifest and a header."""

from gaitdiff.data.store.reader import Sequence, SequenceStore
from gaitdiff.data.store.writer import StoreWriter

__all__ = ["Sequence", "SequenceStore", "StoreWriter"]
