"""What a command line asks, of which model, in which way: benchmarks read, protocols, a machine or an endpoint."""
