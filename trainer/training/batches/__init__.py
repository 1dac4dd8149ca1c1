"""The order and the shape of batches: samplers, passes, packing without padding."""
