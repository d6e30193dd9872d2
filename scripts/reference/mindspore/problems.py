"""The seeded problems that the optimizers are run on: initial weights, and a gradient for every
step."""

import zlib

import numpy as np
from format import split

STEPS = 8

#: name: dtype, (name, shape) of each parameter, scale of the gradients
PROBLEMS = {
    "dense": ("float32", (("p0", (5,)), ("p1", (3, 4)), ("p2", (2, 1, 3))), 1.0),
    "half": ("float16", (("p0", (5,)), ("p1", (3, 4)), ("p2", (2, 1, 3))), 1.0),
    "tiny": ("float32", (("p0", (5,)), ("p1", (3, 4)), ("p2", (2, 1, 3))), 1e-3),
    "named": ("float32", (("fc.weight", (3, 4)), ("bn.gamma", (4,)), ("bn.beta", (4,))), 1.0),
    "layers": ("float32", (("fc.weight", (3, 4)), ("fc.bias", (4,)), ("LayerNorm.w", (4,))), 1.0),
    "conv": ("float32", (("conv", (2, 16, 1, 2)), ("small", (2, 3, 2)), ("bias", (5,))), 1.0),
}

#: name: shape of the table, rows touched in each step (unique, and with repetitions)
SPARSE = {
    "rows": ((6, 3), [[1, 4], [4, 0], [2, 3], [1, 2], [5, 0], [4, 1]]),
    "repeated": ((6, 3), [[1, 1, 4], [4, 0, 4], [2, 2, 2], [1, 2, 1], [0, 5, 0], [4, 1, 1]]),
}


class Problem:
    """Weights and gradients of one problem, as lists of arrays, or as flat rows for the file."""

    def __init__(self, name):
        self.name = name
        self.sparse = name in SPARSE
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if self.sparse:
            shape, rows = SPARSE[name]
            self.dtype, self.names, self.shapes, scale = "float32", ("table",), (shape,), 1.0
            self.rows = np.array(rows, dtype=np.int32)
            self.steps = len(rows)
            width = self.rows.shape[1] * shape[1]
        else:
            self.dtype, parameters, scale = PROBLEMS[name]
            self.names, self.shapes = zip(*parameters, strict=True)
            self.rows, self.steps = None, STEPS
            width = sum(int(np.prod(shape)) for shape in self.shapes)
        size = sum(int(np.prod(shape)) for shape in self.shapes)
        self.flat_weights = rng.standard_normal(size).astype(self.dtype)
        self.flat_grads = (scale * rng.standard_normal((self.steps, width))).astype(self.dtype)

    def weights(self):
        return [part.copy() for part in split(self.flat_weights, self.shapes)]

    def grads(self, step):
        """The dense gradients of a step; those of a sparse problem with equal rows added."""
        if not self.sparse:
            return split(self.flat_grads[step], self.shapes)
        grad = np.zeros(self.shapes[0], dtype=np.float64)
        np.add.at(grad, self.rows[step], self.values(step))
        return [grad.astype(self.dtype)]

    def values(self, step):
        return self.flat_grads[step].reshape(self.rows.shape[1], -1)

    def describe(self):
        """What the JSON file says of the problem."""
        return {
            "dtype": self.dtype,
            "steps": self.steps,
            "names": list(self.names),
            "shapes": [list(shape) for shape in self.shapes],
            "sparse": self.sparse,
        }

    def arrays(self):
        """What the npz file holds of the problem."""
        head = f"problem/{self.name}"
        if self.sparse:
            return {
                f"{head}/weights": self.flat_weights,
                f"{head}/rows": self.rows,
                f"{head}/values": self.flat_grads,
            }
        return {f"{head}/weights": self.flat_weights, f"{head}/grads": self.flat_grads}
