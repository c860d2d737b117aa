"""Tools to look at a run: metrics, samples, probes, comparisons, pictures."""
