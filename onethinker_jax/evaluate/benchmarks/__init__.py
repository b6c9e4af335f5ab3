"""The paper's 31 benchmarks: what each is read from, measured by, and what was published of it."""
