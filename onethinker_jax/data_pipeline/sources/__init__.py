"""Public data sets as they are published, read from where the user has put them."""
