"""Several float32 values as one: what LLVM can do with a vector, and Numba cannot express in Python.

``load`` takes ``LANES`` neighbours of an array, ``store`` puts them back, ``prefetch`` has the processor
bring them into its caches beforehand; ``load_64``, ``store_64`` and ``prefetch_64`` do the same with 64 of
them, and so on; ``value_at`` loads one. From an array of uint16 they load the float16 values whose bits it
holds. Between load and store values may be multiplied by a scalar, added to their like or to a scalar, held
above a scalar with ``max`` and compared with ``>=``, which gives a bit mask: enough for the functions of
:mod:`evsnn_kernels.spec.neuron`, which thus mean the same for one neuron and for many. Each operation is
rounded as its scalar twin is. A mask is dear; :func:`may_reach` tells cheaply that there is nothing to be
found in it.

Compared with a plain loop, which LLVM vectorises only where it can prove that arrays do not overlap and that
the loop is long, short rows (the maps of one place) run at full width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from evsnn_kernels.jit import has_cpu_feature
from evsnn_kernels.layout import CACHE_LINE, LANES

#: Bits of a mask.
_BITS: Final = 64


class _VectorType(types.Type):
    def __init__(self, width: int) -> None:
        super().__init__(name=f"float32 x {width}")
        self.width = width
        self.floats = ir.VectorType(ir.FloatType(), width)


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, vector.floats)  # type: ignore[no-untyped-call]  # Numba has no types


def _address(kind: Any, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to values of an LLVM type that begin at an index of an array, the first two arguments."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer())


def _like(kind: Any, lane: Any) -> Any:
    """Type of as many lanes as ``kind`` has, or of the one that a scalar is."""
    return ir.VectorType(lane, kind.count) if isinstance(kind, ir.VectorType) else lane


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _widened(builder: Any, bits: Any) -> Any:
    """Float32 values of the bits of finite float16 ones; exact."""
    if has_cpu_feature("f16c"):
        return builder.fpext(
            builder.bitcast(bits, _like(bits.type, ir.HalfType())), _like(bits.type, ir.FloatType())
        )
    # Exponent and fraction at their places in a float32, whose exponent counts from another number.
    integers, floats = _like(bits.type, ir.IntType(32)), _like(bits.type, ir.FloatType())
    wide = builder.zext(bits, integers)
    magnitude = builder.shl(builder.and_(wide, _constant(integers, 0x7FFF)), _constant(integers, 13))
    sign = builder.shl(builder.and_(wide, _constant(integers, 0x8000)), _constant(integers, 16))
    scaled = builder.fmul(builder.bitcast(magnitude, floats), _constant(floats, 2.0**112))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, integers), sign), floats)


def _loaded(kind: Any, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Float32 values at an index of an array of float32, or of the bits of float16."""
    if signature.args[0].dtype == types.uint16:
        halves = _like(kind, ir.IntType(16))
        return _widened(
            builder, builder.load(_address(halves, context, builder, signature, arguments), align=2)
        )
    return builder.load(_address(kind, context, builder, signature, arguments), align=4)


def _value_at(typing_context: Any, array: Any, index: Any) -> Any:
    """Value of an array of one dimension."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _loaded(ir.FloatType(), context, builder, signature, arguments)

    return types.float32(array, types.intp), body


def _splat(vector: Any, builder: Any, value: Any) -> Any:
    index = ir.IntType(32)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, one, zeros)


def _access(vector: _VectorType) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Functions that load a vector ``array[first : first + width]``, store it there, and announce a load."""

    def load(typing_context: Any, array: Any, first: Any) -> Any:
        def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _loaded(vector.floats, context, builder, signature, arguments)

        return vector(array, types.intp), body

    def store(typing_context: Any, array: Any, first: Any, values: Any) -> Any:
        def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            address = _address(vector.floats, context, builder, signature, arguments)
            builder.store(arguments[2], address, align=4)
            return context.get_dummy_value()

        return types.void(array, types.intp, vector), body

    def prefetch(typing_context: Any, array: Any, first: Any) -> Any:
        lanes_of_a_line = CACHE_LINE * 8 // array.dtype.bitwidth

        def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            integer, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            announce = builder.module.declare_intrinsic(
                "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
            )
            # For reading, into all caches, data.
            how = [ir.Constant(integer, value) for value in (0, 3, 1)]
            for lane in range(0, vector.width, lanes_of_a_line):
                index = builder.add(arguments[1], ir.Constant(arguments[1].type, lane))
                address = _address(ir.IntType(8), context, builder, signature, [arguments[0], index])
                builder.call(announce, [address, *how])
            return context.get_dummy_value()

        return types.void(array, types.intp), body

    # Numba supplies the typing context; callers see only the arguments after it.
    return intrinsic(load), intrinsic(store), intrinsic(prefetch)


def _lowest_bit(typing_context: Any, mask: Any) -> Any:
    """Index of the lowest bit set in a mask that is not zero."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), body


def _count_bits(typing_context: Any, mask: Any) -> Any:
    """How many bits of a mask are set."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), body


def _where(typing_context: Any, mask: Any, a: Any, b: Any) -> Any:
    """Values of one vector where a bit of a mask is set, of another where it is not."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, *vectors = arguments
        width = signature.args[1].width
        if width < _BITS:
            bits = builder.trunc(bits, ir.IntType(width))
        return builder.select(builder.bitcast(bits, ir.VectorType(ir.IntType(1), width)), *vectors)

    return a(types.uint64, a, a), body


def _integers(builder: Any, vector: Any) -> Any:
    return builder.bitcast(vector, ir.VectorType(ir.IntType(32), vector.type.count))


def _larger_integers(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _highest(typing_context: Any, a: Any, b: Any) -> Any:
    """Larger values of two vectors where they are positive, else any of the two: for :func:`may_reach`."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = (_integers(builder, vector) for vector in arguments)
        return builder.bitcast(_larger_integers(builder, a, b), signature.return_type.floats)

    return a(a, a), body


def _may_reach(typing_context: Any, vector: Any, bound: Any) -> Any:
    """Whether some value is at or above a positive bound: never missed, but NaN may look like it."""

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # Read as integers, positive floats keep their order and the others stay below them; processors have
        # more units for that than for comparing floats.
        largest = _integers(builder, arguments[0])
        while (count := largest.type.count) > LANES:
            lanes = ir.VectorType(ir.IntType(32), count // 2)
            lower, upper = (
                builder.shuffle_vector(
                    largest, largest, ir.Constant(lanes, list(range(low, low + count // 2)))
                )
                for low in (0, count // 2)
            )
            largest = _larger_integers(builder, lower, upper)
        bound = builder.bitcast(arguments[1], ir.IntType(32))
        reached = builder.icmp_signed(">=", largest, _splat(largest.type, builder, bound))
        bits = builder.bitcast(reached, ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(vector, types.float32), body


count_bits: Callable[..., Any] = intrinsic(_count_bits)
lowest_bit: Callable[..., Any] = intrinsic(_lowest_bit)
highest: Callable[..., Any] = intrinsic(_highest)
may_reach: Callable[..., Any] = intrinsic(_may_reach)
value_at: Callable[..., Any] = intrinsic(_value_at)
where: Callable[..., Any] = intrinsic(_where)


def _operation(python: Any, of_vectors: bool, result: Any, emit: Callable[[Any, Any, Any], Any]) -> None:
    """Give vectors an operation with their like, or with a scalar that all values share.

    One rule for all widths, which emits code itself: Numba asks every rule about every operation of every
    kernel, and would compile a function for every pair of types.
    """

    def rule(typing_context: Any) -> Callable[[Any, Any], Any]:
        def result_type(a: Any, b: Any) -> Any:
            if isinstance(a, _VectorType) and (b == types.float32 or (of_vectors and a == b)):
                return result or a
            return None

        return result_type

    def body(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (a, b), (left, right) = signature.args, arguments
        return emit(builder, left, right if a == b else _splat(a.floats, builder, right))

    type_callable(python)(rule)
    lower: Any = lower_builtin  # Numba has no types
    lower(python, _VectorType, types.Float)(body)
    lower(python, _VectorType, _VectorType)(body)


def _emit_max(builder: Any, a: Any, b: Any) -> Any:
    # As ``larger`` does it: equal values of different sign, and NaN, give the first.
    return builder.select(builder.fcmp_ordered(">", b, a), b, a)


def _emit_mask(builder: Any, a: Any, b: Any) -> Any:
    reached = builder.fcmp_ordered(">=", a, b)
    bits = builder.bitcast(reached, ir.IntType(reached.type.count))
    return bits if reached.type.count == _BITS else builder.zext(bits, ir.IntType(_BITS))


_operation(operator.mul, False, None, lambda builder, a, b: builder.fmul(a, b))
_operation(operator.add, True, None, lambda builder, a, b: builder.fadd(a, b))
_operation(operator.sub, False, None, lambda builder, a, b: builder.fsub(a, b))
_operation(max, False, None, _emit_max)
_operation(operator.ge, False, types.uint64, _emit_mask)

load, store, prefetch = _access(_VectorType(LANES))
load_16, store_16, prefetch_16 = _access(_VectorType(16))
load_32, store_32, prefetch_32 = _access(_VectorType(32))
load_64, store_64, prefetch_64 = _access(_VectorType(64))
