"""What a run's device programs need and take, told before the run by compiling them for devices that are not there."""
