"""The report for people: one page of HTML that is complete in itself, and the comparison of two runs."""
