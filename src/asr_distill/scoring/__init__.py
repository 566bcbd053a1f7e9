"""Word error rates, their intervals, and when a claim counts as reproduced."""
