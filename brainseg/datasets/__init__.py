"""Everything particular to a data set: where it lies, what it holds, and whether it is fit for training."""
