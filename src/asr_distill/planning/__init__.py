"""What a study would cost at a scale, before it runs: from sizes, budgets and measured or assumed speeds alone."""
