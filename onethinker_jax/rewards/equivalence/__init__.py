"""Whether two texts mean the same number or expression: quantities, units, LaTeX, SymPy in a process of its own."""
