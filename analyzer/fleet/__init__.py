"""Many bundles: one unit of work each, scheduled locally or on a cluster, results in Parquet."""
