"""Files on disk: atomic writes, pickles, downloads, data sets, training states, run folders."""
