"""The caller's side of the reward service: addresses, TLS and token, calls, a service started by the trainer."""
