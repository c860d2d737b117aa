"""Looking at a run: metrics, samples, probes, comparisons, pictures."""
