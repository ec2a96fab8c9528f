"""Sequences on disk and in batches: the packed store, importers, alignment, samplers, augmentations."""
