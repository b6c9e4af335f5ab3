"""Records: JSON rows and archives in, checked `Record`s out."""
