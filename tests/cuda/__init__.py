"""What can be known of the CUDA path without a device: run with the real CuPy, in an environment of its own."""
