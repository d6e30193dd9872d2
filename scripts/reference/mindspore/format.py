"""The format of the MindSpore reference data, written here and described in tests/data/README.md.

A collection is a pair of files: NAME.json tells how to rebuild each case, NAME.npz holds the
numbers. Problems (initial weights, and one gradient per step) are shared by many cases:

    problem/P/weights        (N,)        the parameters of the problem, flattened, one after another
    problem/P/grads          (steps, N)  the gradients in the same order
    problem/P/rows, values   (steps, k)  and (steps, k * columns): row-sparse problems have these instead

and each case holds what one source made of its problem:

    CASE/SOURCE              (steps, N)  the parameters after every step
    CASE/SOURCE/STATE        (steps, M)  a state, the arrays of all parameters flattened one after another

SOURCE is `mindspore`, `torch` (double precision, rounded to float32) or `formula` (the documented
formula, the same way). The order is that of the problem, whatever order the groups give the
parameters.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

FORMAT = 1


def tuple_(*values):
    """A tuple: JSON knows lists only, and MindSpore tells the two apart."""
    return {"$tuple": list(values)}


def array(*values):
    """A float32 array, where MindSpore takes a Tensor."""
    return {"$array": list(values)}


def schedule(name, **options):
    """A schedule object of mindspore.nn, built from keyword arguments."""
    return {"$schedule": name, "options": options}


def power(base):
    """The function `step -> base ** step`."""
    return {"$power": base}


def hyperbola(rate):
    """The function `step -> 1 / (1 + rate * step)`."""
    return {"$hyperbola": rate}


def constant(value):
    """The function `step -> value`."""
    return {"$constant": value}


def decode(value, tensor=np.asarray, schedules=None):
    """The Python value that a JSON value of a case stands for.

    `tensor` makes an array of the framework's own kind; `schedules` is the module with the schedule
    classes.
    """
    if isinstance(value, list):
        return [decode(item, tensor, schedules) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(decode(item, tensor, schedules) for item in value["$tuple"])
    if "$array" in value:
        return tensor(np.array(value["$array"], dtype=np.float32))
    if "$schedule" in value:
        return getattr(schedules, value["$schedule"])(**decode(value["options"], tensor, schedules))
    if "$power" in value:
        return lambda step, base=value["$power"]: base**step
    if "$hyperbola" in value:
        return lambda step, rate=value["$hyperbola"]: 1.0 / (1.0 + rate * step)
    if "$constant" in value:
        return lambda step, result=value["$constant"]: result
    return {key: decode(item, tensor, schedules) for key, item in value.items()}


def flatten(arrays):
    """One vector of all arrays, in order."""
    return np.concatenate([np.asarray(array).ravel() for array in arrays])


def split(vector, shapes):
    """The arrays of the given shapes that `flatten` made the vector of."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]


def compact(document):
    """JSON with one line per entry of every list at the top level, so that a change shows as one
    line."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            inner = ",\n".join("  " + json.dumps(item) for item in value)
            lines.append(f"{json.dumps(key)}: [\n{inner}\n]")
        elif isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def save_npz(path, arrays):
    """What `numpy.savez_compressed` writes, without the time of day: the same bytes every time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(values), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue())


def write(folder, name, document, arrays=None):
    """Write NAME.json and, where there are arrays, NAME.npz; say how large they are."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json"]
    paths[0].write_text(compact({"format": FORMAT, **document}), encoding="utf-8")
    if arrays is not None:
        paths.append(folder / f"{name}.npz")
        save_npz(paths[1], arrays)
    for path in paths:
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
