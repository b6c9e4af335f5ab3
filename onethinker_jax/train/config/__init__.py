"""Every setting of a run, and the named presets. Imports no JAX."""
