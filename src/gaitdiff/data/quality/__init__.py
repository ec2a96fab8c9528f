"""Looking at a store: is it whole, is it aligned, what looks wrong."""
