"""What the benchmarks measure, each in the form OneThinker's script gives and in the benchmark's own."""
