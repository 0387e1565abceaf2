# SPDX-License-Identifier: GPL-2.0
# What PyPy traces: recursion, objects, dictionaries, generators; and in two threads.
import threading


class Vector:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def vectors(count):
    total = Vector(0, 0)
    for i in range(count):
        total = total + Vector(i % 7, i % 11)
    return total.x, total.y


def words(count):
    seen = {}
    for i in range(count):
        word = format(i * i % 65537, "x")
        seen[word] = seen.get(word, 0) + 1
    return min(seen.items(), key=lambda item: (-item[1], item[0]))


def primes(limit):
    composite = bytearray(limit)
    for i in range(2, limit):
        if not composite[i]:
            yield i
            for j in range(i * i, limit, i):
                composite[j] = 1


def many(count):
    total = 0
    for factor in range(1, count + 1):
        scope = {}
        exec(f"def f(k):\n t = 0\n for i in range(k): t = (t * {factor} + i) % 10007\n return t", scope)
        total += scope["f"](3000)
    return total


def everything():
    return fib(22), vectors(100000), words(20000), sum(primes(100000)), many(50)


answers = []
threads = [threading.Thread(target=lambda: answers.append(everything())) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(answers[0] == answers[1], *answers[0], sep="\n")
