"""Finding the neurons that reached threshold, many lanes at a time.

LLVM turns a comparison of a whole vector into a bit mask on any processor, but Numba cannot express it in
Python. These two intrinsics can; the threshold test itself is :func:`evsnn_kernels.spec.neuron.fires`,
and tests/kernels/test_vector.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

#: Neurons tested at once.
LANES: Final = 32


def _threshold_mask(typing_context: Any, potential: Any, first: Any) -> Any:  # noqa: ANN401 - Numba's own types
    """Bit b of the result is set where ``potential[first + b] >= 1``, b in 0 to LANES - 1."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401 - Numba's own types
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector = ir.VectorType(ir.FloatType(), LANES)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        values = builder.load(address, align=4)
        above = builder.fcmp_ordered(">=", values, ir.Constant(vector, [1.0] * LANES))
        return builder.zext(builder.bitcast(above, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(potential, types.intp), body


def _lowest_bit(typing_context: Any, mask: Any) -> Any:  # noqa: ANN401 - Numba's own types
    """Index of the lowest bit set in a mask that is not zero."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401 - Numba's own types
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), body


# Numba supplies the typing context; callers see only the arguments after it.
threshold_mask: Callable[..., Any] = intrinsic(_threshold_mask)
lowest_bit: Callable[..., Any] = intrinsic(_lowest_bit)
