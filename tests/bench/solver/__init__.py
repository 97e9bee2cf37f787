"""Time, memory and accuracy of the convex solver beside other solvers: `make bench-solver`."""
