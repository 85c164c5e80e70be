"""CPU bodies: loops and memory over the physics of ``spec``. Each kernel works on a range given last."""
