"""What makes a decoder faster with the same bits: blocks by family, kernels, proof and audit."""
