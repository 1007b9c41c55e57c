"""``python -m tests.bench``: the budgets, as ratios measured in one run."""
