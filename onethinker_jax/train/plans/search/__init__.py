"""`plan --search`: settings that make a step fast, found by estimating all and compiling the most promising."""
