"""Statistics, contrasts, verdicts and tables: pure functions of the records."""
