"""From the samples of a data set to a training file in OneThinker's layout."""
