"""What a compiled program costs on known hardware: FLOPs, bytes, memory, collectives."""
