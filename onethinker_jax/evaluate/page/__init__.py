"""The page of an evaluation: tables, charts and examples in one HTML file."""
