"""Questions of the Photos world: a file a family of tasks, and `table` of all of them."""
