"""The result of a run for other programs: JUnit XML, CSV, a row a token, llm-d's benchmark report."""
