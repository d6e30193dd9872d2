"""Arrays of other libraries as NumPy arrays over the same memory, and the checks of arrays that an
update reads or writes."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from mxopt.device import check_bare, is_cupy as is_cupy, library_of, on_device_of, place_of as place_of, to_host
from mxopt.errors import ArrayError, ArrayTypeError, counted
from mxopt.sparse import RowSparse, row_sparse_array
from mxopt.sparse.slots import RowSlots
from mxopt.typing import Array, State

HUGE = 4 << 20  # bytes from which large pages pay off: fewer page faults, fewer TLB misses
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ORDER = "an updater takes (index, grad, weight), an optimizer's update (index, weight, grad, state)"
DTYPES = {np.dtype(name): name for name in ("float16", "float32", "float64")} | {BFLOAT16: "bfloat16"}


def as_array(x: Any, name: str) -> Array:
    """`x` as an array over its memory: a NumPy or CuPy array itself, anything with DLPack or a
    buffer without a copy. `name` is what an error calls it. Raises ArrayTypeError if `x` lends no
    memory, or means more than what its memory holds, as a masked array does."""
    if type(x) is np.ndarray or isinstance(x, RowSparse) or is_cupy(x):
        return x
    if is_tensor(x):
        try:
            return _of_tensor(x)
        except (TypeError, BufferError, RuntimeError, ValueError) as error:
            raise ArrayTypeError(f"{name}: this tensor doesn't lend its memory: {error}") from error
    if isinstance(x, np.ndarray):
        check_bare(x, name)
        return np.asarray(x)
    value = getattr(x, "value", None)
    if value is not None and type(x).__module__.startswith("mxopt."):
        return as_array(value, name)
    try:
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        return np.asarray(memoryview(x))
    except (TypeError, BufferError, RuntimeError, ValueError) as error:
        its_own = f": {error}" if hasattr(x, "__dlpack__") else ""  # memoryview's message helps nobody
        raise ArrayTypeError(
            f"{name}: needs an array that lends its memory (NumPy, CuPy, DLPack, buffer), got {type(x).__name__}"
            f"{_instead(x) or its_own}"
        ) from error


def _instead(x: object) -> str:
    """What to write instead of some things that aren't arrays; empty for others."""
    if x is None:
        return ": leave out what has no array"
    if isinstance(x, list | tuple | int | float):
        return ": write np.array(x, np.float32), and keep it where it is to be updated"
    if hasattr(x, "tocoo"):
        return ": as a gradient mxopt.sparse.row_sparse_array(x) will do"
    return ": write x.to_numpy(copy=True), and keep it where it is to be updated" if hasattr(x, "to_numpy") else ""


def is_array(x: object) -> bool:
    """Whether `x` is a NumPy or CuPy array."""
    return isinstance(x, np.ndarray) or is_cupy(x)


def is_parameter(x: object) -> bool:
    """Whether `x` says that it is trained, as a `mxopt.Parameter` does, and a leaf tensor of
    PyTorch's that requires a gradient."""
    return bool(getattr(x, "requires_grad", False)) and getattr(x, "is_leaf", True)


# PyTorch's tensors. PyTorch is never imported here: whoever has a tensor has imported it.


def is_tensor(x: object) -> bool:
    """Whether `x` is a tensor of PyTorch."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_sparse_tensor(x: Any) -> bool:
    """Whether `x` is a sparse tensor of PyTorch."""
    return type(x) is not np.ndarray and is_tensor(x) and bool(x.is_sparse)


def as_gradient(x: Any, name: str) -> Array:
    """`as_array` for gradients, which are only read: a sparse tensor of PyTorch becomes a
    RowSparse."""
    if is_sparse_tensor(x):
        return row_sparse_array(x)
    return as_array(x, name)


def lent_by(tensors: Iterable[Any]) -> list[Any] | None:
    """Arrays over the memory of PyTorch's tensors, where None stays None. Returns None if one isn't
    an ordinary tensor on the CPU: `as_array` takes it, or says why not."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not set(map(type, tensors)) <= {torch.Tensor, torch.nn.Parameter, type(None)}:
        return None
    try:
        return [x if x is None else (x.detach() if x.requires_grad else x).numpy() for x in tensors]
    except (TypeError, RuntimeError):
        return None


def tell_autograd(written: Iterable[object]) -> None:
    """Tells PyTorch which tensors were written, so that a backward pass that needs their old values
    raises, as after PyTorch's own optimizers. Ignores everything else in `written`."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        tensors = [x for x in written if isinstance(x, torch.Tensor)]
        if tensors:
            torch.autograd.graph.increment_version(tensors)


def tell_autograd_of(written: Any) -> None:
    """`tell_autograd` for an array, or for a list of only tensors or none."""
    one = written[0] if type(written) in (list, tuple) and written else written
    if type(one) is not np.ndarray and is_tensor(one):
        tell_autograd([written] if one is written else written)


def _of_tensor(x: Any) -> Array:
    torch: Any = sys.modules["torch"]
    if type(x) not in (torch.Tensor, torch.nn.Parameter):
        raise TypeError("a subclass of torch.Tensor may mean more than its memory; give x.as_subclass(torch.Tensor)")
    if x.is_neg():
        raise TypeError("this view stands for the negative of its memory; give x.resolve_neg()")
    if x.requires_grad:  # such a tensor doesn't lend its memory
        x = x.detach()
    if x.is_cuda:
        import cupy

        return cupy.from_dlpack(x)
    if x.dtype is torch.bfloat16:  # NumPy doesn't know it
        return x.view(torch.int16).numpy().view(BFLOAT16)
    return x.numpy()


def dtype_name(dtype: np.dtype) -> str | None:
    """What kernels call a dtype of any byte order; None for one that can't be updated."""
    return DTYPES.get(dtype.newbyteorder("="))


def data_of(x: Array) -> Array:
    """The array that holds the values of `x`: `x` itself, or the rows of a row-sparse array."""
    return x.memory if isinstance(x, RowSparse) else x


def check_weight(weight: Array, name: str, what: str = "the weight", grad: Array = None) -> None:
    """Raises if `weight` can't be updated in place. `what` is what the error calls it. If `grad`
    could be, the error explains the order of arguments."""
    if isinstance(weight, RowSparse):
        _check_sound(weight, name, what)
        weight = weight.memory
    if not is_array(weight):
        raise ArrayTypeError(f"{name}: {what} must be an array, got {type(weight).__name__}")
    check_bare(weight, f"{name}, {what.removeprefix('the ')}")
    if not dtype_name(weight.dtype):
        raise ArrayTypeError(
            f"{name}: {what} must be of {', '.join(DTYPES.values())}, got {weight.dtype}: give x.astype(np.float32)"
        )
    order = f". If it is the gradient: {ORDER}" if is_array(data_of(grad)) and is_writeable(grad) else ""
    if not is_writeable(weight):
        raise ArrayError(
            f"{name}: {what} is read-only, so it can't be updated in place: give a copy, np.array(x){order}"
        )
    if not is_plain(weight) and _overlaps_itself(weight):
        raise ArrayError(
            f"{name}: {what} is a view whose elements share memory, as np.broadcast_to makes it: give a copy,"
            f" np.array(x){order}"
        )


def check_dense_weight(weight: Array, name: str) -> None:
    """`check_weight` for optimizers that take no row-sparse weights."""
    if isinstance(weight, RowSparse):
        raise ArrayTypeError(
            f"{name}: a row-sparse weight, which only the optimizers of mxopt.create take; give x.asnumpy()"
        )
    check_weight(weight, name)


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements of an array lie in the same memory."""
    axes = sorted((abs(step), n) for step, n in zip(array.strides, array.shape, strict=True) if n > 1)
    if not array.size or not axes:
        return False
    reach, apart = array.itemsize, True  # the bytes that elements span along the axes so far
    for step, n in axes:
        apart = apart and step >= reach
        reach += step * (n - 1)
    if apart or array.nbytes > reach:  # nearly always decides
        return not apart
    places = np.zeros(1, np.int64)
    for step, n in axes:
        places = (places[:, None] + step * np.arange(n)).ravel()
    return bool(np.diff(np.sort(places)).min() < array.itemsize)


def check_grad(weight: Array, grad: Array, name: str) -> None:
    """Raises if `grad` can't be the gradient of `weight`."""
    if isinstance(grad, RowSparse):
        _check_place(grad.memory, weight, name, "the gradient")
        _check_place(grad.indices, weight, name, "its row indices")
    else:
        _check_place(grad, weight, name, "the gradient")
    if grad.shape != weight.shape:
        raise ArrayError(f"{name}: the weight has shape {weight.shape}, the gradient {grad.shape}")
    if not _fits(weight, grad.dtype):
        raise ArrayTypeError(
            f"{name}: a {weight.dtype} weight can't take a gradient of {grad.dtype}: give grad.astype('{weight.dtype}')"
        )
    if overlap(weight, grad):
        raise ArrayError(f"{name}: the gradient shares memory with the weight")
    if isinstance(grad, RowSparse):
        _check_sound(grad, name, "the gradient")


def _check_sound(array: RowSparse, name: str, what: str) -> None:
    if not array.is_sound():
        raise ArrayError(
            f"{name}: the row indices of {what} must be ascending and within 0 to {array.shape[0] - 1}, of int64, one"
            " for each row of its data"
        )


def check_state(weight: Array, state: State, shape: tuple[int, ...], name: str, what: str) -> None:
    """Raises if `state` can't be a state of `weight` with this shape."""
    if isinstance(weight, RowSparse) and isinstance(state, RowSparse):
        _check_sound(state, name, what)
        _check_place(state.memory, weight, name, what)
    else:
        _check_place(state, weight, name, what)
    if not _fits(weight, state.dtype):
        raise ArrayTypeError(f"{name}: a {weight.dtype} weight can't have {what} of {state.dtype}")
    if not is_writeable(state):
        raise ArrayError(f"{name}: {what} is read-only")
    if state.shape != shape:
        raise ArrayError(f"{name}: {what} has shape {state.shape}, needs {shape}")
    if not isinstance(state, RowSparse) and not is_plain(state) and _overlaps_itself(state):
        raise ArrayError(f"{name}: {what} is a view whose elements share memory")


def _fits(weight: Array, dtype: np.dtype) -> bool:
    """Whether the arithmetic for `weight` holds values of `dtype` exactly: it has the weight's
    precision, float32 at least."""
    return bool(dtype_name(dtype)) and dtype.itemsize <= max(weight.dtype.itemsize, 4)


def _check_place(array: Array, weight: Array, name: str, what: str) -> None:
    weight = data_of(weight)
    if not is_array(array):
        raise ArrayTypeError(f"{name}: {what} must be an array like the weight, got {type(array).__name__}")
    check_bare(array, f"{name}, {what}")
    if place_of(array) != place_of(weight):
        raise ArrayTypeError(f"{name}: the weight is on {place_of(weight)}, {what} on {place_of(array)}")


def is_writeable(array: Array) -> bool:
    """Whether an array, dense or row-sparse, may be written to."""
    array = data_of(array)
    return is_cupy(array) or bool(array.flags.writeable)


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share memory. Views for which that takes too long to find out count as
    sharing."""
    a, b = addresses(data_of(a)), addresses(data_of(b))
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def addresses(x: Array) -> np.ndarray:
    """An array at the address of `x`, for asking NumPy about memory. One made of a CuPy array must
    never be read."""
    if not is_cupy(x):
        return np.asarray(x)
    layout = {"shape": x.shape, "strides": x.strides, "typestr": f"|V{x.itemsize}", "data": (x.data.ptr, False)}
    return np.asarray(SimpleNamespace(__array_interface__={**layout, "version": 3}))


def is_plain(array: Array) -> bool:
    """Whether a kernel can walk the array's memory from start to end."""
    if is_cupy(array):
        return bool(array.flags.c_contiguous)
    return bool(array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)


def plain(array: Array) -> Array:
    """A copy that a kernel can walk; the array itself if it is one."""
    if is_plain(array):
        return array
    if is_cupy(array):
        with on_device_of(array):
            return library_of(array).ascontiguousarray(array)
    return np.array(array, array.dtype.newbyteorder("="), order="C")


def zeros(shape: tuple[int, ...], like: Array, dtype: np.dtype | None = None) -> Array:
    """Zeros on the device of `like`, of its dtype or `dtype`, in the machine's byte order; on the
    CPU memory is allocated once it is touched. For a row-sparse `like` they are row-sparse, with
    its rows. Raises MemoryError if there is none."""
    if isinstance(like, RowSparse):
        if like.slots is not None:
            made = RowSlots(like.slots.index, shape, like.dtype if dtype is None else dtype, like=like.memory)
            return RowSparse.in_slots(made)
        return RowSparse(zeros((len(like.data), *shape[1:]), like.data, dtype), like.indices.copy(), shape)
    dtype = like.dtype.newbyteorder("=") if dtype is None else dtype
    size = math.prod(shape) * dtype.itemsize
    if size >= HUGE and not is_cupy(like) and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(
                f"there are no {counted(size, 'byte')} for an array of shape {shape} and {dtype}"
            ) from error
        memory.madvise(mmap.MADV_HUGEPAGE)  # `np.empty` does this, `np.zeros` doesn't
        return np.ndarray(shape, dtype, memory)
    with on_device_of(like):
        return library_of(like).zeros(shape, dtype)


def to_device_of(array: Array, like: Array) -> Array:
    """`array` on the device of `like`: itself if it is there already."""
    like = data_of(like)
    if isinstance(array, RowSparse):
        if place_of(array.memory) == place_of(like):
            return array
        return RowSparse(to_device_of(array.data, like), to_device_of(array.indices, like), array.shape)
    if place_of(array) == place_of(like):
        return array
    with on_device_of(like):
        return library_of(like).asarray(to_host(array))
