"""Methods of the surveyed families that no default uses; each has its row in docs/benchmarks/every_method.md."""
