"""Charts and the HTML report of a run or a study, from its records."""
