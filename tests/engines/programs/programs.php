<?php
// SPDX-License-Identifier: GPL-2.0
// What opcache's tracing JIT compiles: recursion, floating point, arrays, strings.

function fib(int $n): int
{
    return $n < 2 ? $n : fib($n - 1) + fib($n - 2);
}

function mandelbrot(int $width, int $height): int
{
    $sum = 0;
    for ($y = 0; $y < $height; $y++) {
        for ($x = 0; $x < $width; $x++) {
            $cr = 3 * $x / $width - 2;
            $ci = 2 * $y / $height - 1;
            $zr = $zi = 0.0;
            for ($i = 0; $i < 100 && $zr * $zr + $zi * $zi < 4; $i++) {
                [$zr, $zi] = [$zr * $zr - $zi * $zi + $cr, 2 * $zr * $zi + $ci];
            }
            $sum += $i;
        }
    }
    return $sum;
}

function sieve(int $limit): int
{
    $composite = array_fill(0, $limit + 1, false);
    $count = 0;
    for ($i = 2; $i <= $limit; $i++) {
        if ($composite[$i]) {
            continue;
        }
        $count++;
        for ($j = $i * $i; $j <= $limit; $j += $i) {
            $composite[$j] = true;
        }
    }
    return $count;
}

function letters(int $rounds): string
{
    $text = '';
    for ($i = 0; $i < $rounds; $i++) {
        $text .= chr(97 + ($i * $i) % 26);
    }
    return md5($text);
}

echo fib(22), "\n", mandelbrot(100, 50), "\n", sieve(50000), "\n", letters(20000), "\n";
// Whether there is any compiled code at all.
$jit = opcache_get_status()['jit'];
var_dump($jit['on'] && $jit['buffer_size'] - $jit['buffer_free'] > 6000);
