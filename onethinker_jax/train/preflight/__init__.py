"""What happens before the first step: checks of settings, records and model, and the making of the run's parts."""
