"""A library of the Photos world out of packages that ordinary clients fetch: apt-get and pip, without root."""
