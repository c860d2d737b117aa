"""What lies on disk: files written whole, pickles, downloads, data sets, training states, run folders."""
