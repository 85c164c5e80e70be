"""Several float32 values as one: what LLVM can do with a vector, and Numba cannot express in Python.

``load`` takes ``LANES`` neighbours of an array, ``store`` puts them back. Between the two they may be
multiplied by a scalar, added to lanes or to a scalar, held above a scalar with ``max`` and compared with
``>=``, which gives a bit mask: enough for the functions of :mod:`evsnn_kernels.spec.neuron`, which thus
mean the same for one neuron and for eight. Each operation is rounded as its scalar twin is.

Compared with a plain loop, which LLVM vectorises only where it can prove that arrays do not overlap and that
the loop is long, short rows (the maps of one place) run at full width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from evsnn_kernels.layout import LANES

_FLOATS: Final = ir.VectorType(ir.FloatType(), LANES)


class _LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32 x {LANES}")


_LANES: Final = _LanesType()


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Any) -> None:
        super().__init__(manager, lanes, _FLOATS)  # type: ignore[no-untyped-call]  # Numba has no types


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to the lanes that begin at an index of an array, the first two arguments."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), _FLOATS.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    index = ir.IntType(32)
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(index, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(index, LANES), [0] * LANES))


def _load(typing_context: Any, array: Any, first: Any) -> Any:
    """Lanes ``array[first : first + LANES]`` of a contiguous float32 vector."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_address(context, builder, signature, arguments), align=4)

    return _LANES(array, types.intp), body


def _store(typing_context: Any, array: Any, first: Any, lanes: Any) -> Any:
    """Write lanes to ``array[first : first + LANES]``."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _address(context, builder, signature, arguments)
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES), body


def _lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Index of the lowest bit set in a mask that is not zero."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), body


# Numba supplies the typing context; callers see only the arguments after it.
load: Callable[..., Any] = intrinsic(_load)
store: Callable[..., Any] = intrinsic(_store)
lowest_bit: Callable[..., Any] = intrinsic(_lowest_bit)


def _operation(python: Any, other: Any, result: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Give lanes an operation with lanes, or with a scalar that all of them share."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = arguments
        return emit(builder, a, b if other is _LANES else _splat(builder, b))

    def operation(typing_context: Any, a: Any, b: Any) -> Any:
        return result(_LANES, other), body

    inner: Any = intrinsic(operation)

    def choose(a: Any, b: Any) -> Any:
        if (a, b) != (_LANES, other):
            return None
        return lambda a, b: inner(a, b)  # noqa: PLW0108 - Numba compares its signature with this function's

    # Strict would have the lambda repeat the annotations, too.
    overload(python, strict=False)(choose)


def _emit_max(builder: Any, a: Any, b: Any) -> Any:
    # As ``larger`` does it: equal values of different sign, and NaN, give the first.
    return builder.select(builder.fcmp_ordered(">", b, a), b, a)


def _emit_mask(builder: Any, a: Any, b: Any) -> Any:
    bits = builder.bitcast(builder.fcmp_ordered(">=", a, b), ir.IntType(LANES))
    return builder.zext(bits, ir.IntType(64))


_operation(operator.mul, types.float32, _LANES, lambda builder, a, b: builder.fmul(a, b))
_operation(operator.add, types.float32, _LANES, lambda builder, a, b: builder.fadd(a, b))
_operation(operator.add, _LANES, _LANES, lambda builder, a, b: builder.fadd(a, b))
_operation(max, types.float32, _LANES, _emit_max)
_operation(operator.ge, types.float32, types.uint64, _emit_mask)
