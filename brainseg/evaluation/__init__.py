"""Networks against reference masks: one patient, a cohort, and what a model card states."""
