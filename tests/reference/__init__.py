"""Plain NumPy oracles, written from the specification alone: they share no code with what they check."""
