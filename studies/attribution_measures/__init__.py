"""Attribution methods measured beside each other: their figures, and what is left of a map in a scrambled model."""
