"""Published data sets, a file each: facts only, how their folders are named, divided and compared."""
