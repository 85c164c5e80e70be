"""Where kernels run: processor or CUDA card, and what of it this machine has."""
