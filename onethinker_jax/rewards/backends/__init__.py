"""What judges texts and makes masks in the reward service. The only place of the package that imports torch."""
