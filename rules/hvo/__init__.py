"""HugeTLB vmemmap optimisation: struct pages shared read-only."""
