"""Examples become batches of fixed shape: mixtures, packing, and streams that resume exactly."""
