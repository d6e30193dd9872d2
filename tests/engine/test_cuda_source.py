"""The CUDA C of every kernel compiles for a GPU, into no other arithmetic than the rules'."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cuda_kernels import all_kernels, sources

from mxopt.engine.cuda_source import OPTIONS, definition, source
from mxopt.engine.kernel import Kernel
from mxopt.rules import adam, sgd


def test_a_kernel_reads_like_its_rule() -> None:
    text = definition(Kernel(sgd.sgd, 0, ("float16", "float16", "float32")))
    loop = text[text.index("x_weight") :].split("\n    }")[0]
    assert [line.strip().removeprefix("const ") for line in loop.splitlines()] == [
        "x_weight = load(a_master + i);",
        "float x_grad = load(a_grad + i);",
        "float v1 = h_rescale * x_grad;",
        "bool v2 = v1 > h_bound;",
        "float v3 = -(h_bound);",
        "bool v4 = v1 < v3;",
        "float v5 = -(h_bound);",
        "float v6 = v4 ? v5 : v1;",
        "float v7 = v2 ? h_bound : v6;",
        "float v8 = h_wd * x_weight;",
        "float v9 = v7 + v8;",
        "float v10 = h_lr * v9;",
        "float v11 = x_weight - v10;",
        "store(a_weight + i, v11);",
        "store(a_master + i, v11);",
    ]


def test_only_kernels_with_halves_need_a_header() -> None:
    assert "#include <cuda_fp16.h>" in source(Kernel(adam.adam, 0, ("float16",) * 4))
    assert "#include" not in source(Kernel(adam.adam, 0, ("bfloat16",) * 4))


def test_every_kernel_compiles_and_nothing_is_contracted_or_approximated(tmp_path: Path) -> None:
    if not shutil.which("nvcc"):
        pytest.skip("there is no nvcc here")
    running = []
    for k, text in enumerate(sources(2)):
        (tmp_path / f"{k}.cu").write_text(text)
        command = ["nvcc", "-w", "-ptx", "-arch=sm_90", *OPTIONS, f"{tmp_path}/{k}.cu", "-o", f"{tmp_path}/{k}.ptx"]
        running.append(subprocess.Popen(command))
    assert [process.wait() for process in running] == [0, 0]
    ptx = "".join(path.read_text() for path in tmp_path.glob("*.ptx"))
    assert set(re.findall(r"\.entry (\w+)", ptx)) == {kernel.name for kernel in all_kernels()}
    found = set(re.findall(r"\b(?:add|sub|mul|div|sqrt|fma|mad|rcp|rsqrt)\.[a-z0-9.]*f(?:16|32|64)\b", ptx))
    exact = ("add", "sub", "mul", "div", "sqrt", "rcp")  # a reciprocal that is rounded as a division is
    assert found == {f"{name}.rn.f{bits}" for name in exact for bits in (32, 64)}
