// SPDX-License-Identifier: GPL-2.0
// What V4, the engine of QML, compiles: functions that are called often.
import QtQml

QtObject {
    function fib(n) {
        return n < 2 ? n : fib(n - 1) + fib(n - 2);
    }

    function many(count) {
        let sum = 0;
        for (let n = 1; n <= count; n++) {
            const f = new Function('k', `let t = 0; for (let i = 0; i < k; i++) t = (t * ${n} + i) % 10007; return t;`);
            for (let call = 0; call < 10; call++)
                sum += f(30);
        }
        return sum;
    }

    function words(count) {
        const seen = {};
        for (let i = 0; i < count; i++) {
            const word = ((i * i) % 65537).toString(16);
            seen[word] = (seen[word] ?? 0) + 1;
        }
        return Object.keys(seen).length;
    }

    Component.onCompleted: {
        console.log(fib(18), many(100), words(5000));
        Qt.exit(0);
    }
}
