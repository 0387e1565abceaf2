// SPDX-License-Identifier: GPL-2.0
// What SpiderMonkey's baseline compiler and its optimising one compile.

function fib(n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

class Vector {
    constructor(x, y) {
        this.x = x;
        this.y = y;
    }

    add(other) {
        return new Vector(this.x + other.x, this.y + other.y);
    }

    get length() {
        return Math.sqrt(this.x * this.x + this.y * this.y);
    }
}

function vectors(count) {
    let sum = new Vector(0, 0);
    for (let i = 0; i < count; i++)
        sum = sum.add(new Vector(i % 7, i % 11));
    return sum.length.toFixed(6);
}

function words(count) {
    const seen = new Map();
    for (let i = 0; i < count; i++) {
        const word = ((i * i) % 65537).toString(16).replace(/[a-c]+/g, '-');
        seen.set(word, (seen.get(word) ?? 0) + 1);
    }
    return [...seen].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))[0].join(' ');
}

function many(count) {
    let sum = 0;
    for (let n = 1; n <= count; n++) {
        const f = new Function('k', `let t = 0; for (let i = 0; i < k; i++) t = (t * ${n} + i) % 10007; return t;`);
        sum += f(300) + f(300);
    }
    return sum;
}

print(fib(22));
print(vectors(100000));
print(words(20000));
print(many(200));
