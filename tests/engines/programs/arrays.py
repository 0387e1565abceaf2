# SPDX-License-Identifier: GPL-2.0
# Numba, a compiler of Python over llvmlite: loops and arrays.
import numpy
from numba import njit


@njit
def mandelbrot(width, height, limit):
    total = 0
    for y in range(height):
        for x in range(width):
            c = complex(3 * x / width - 2, 2 * y / height - 1)
            z = 0j
            count = 0
            while count < limit and z.real * z.real + z.imag * z.imag < 4:
                z = z * z + c
                count += 1
            total += count
    return total


@njit
def sieve(limit):
    composite = numpy.zeros(limit, dtype=numpy.bool_)
    count = 0
    for number in range(2, limit):
        if not composite[number]:
            count += 1
            for multiple in range(number * number, limit, number):
                composite[multiple] = True
    return count


print(mandelbrot(200, 100, 100), sieve(100000))
