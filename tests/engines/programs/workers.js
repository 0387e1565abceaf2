// SPDX-License-Identifier: GPL-2.0
// Node.js: what V8 compiles, in the main thread and in three workers at once.
const {Worker, isMainThread, parentPort, workerData} = require('worker_threads');
const {readFileSync} = require('fs');

function run(source) {
    const lines = [];
    new Function('print', source)(line => lines.push(String(line)));
    return lines;
}

if (!isMainThread) {
    parentPort.postMessage(run(workerData));
} else {
    const source = readFileSync(`${__dirname}/programs.js`, 'utf8');
    const done = () => new Promise((resolve, reject) => {
        const worker = new Worker(__filename, {workerData: source});
        worker.on('message', resolve);
        worker.on('error', reject);
    });
    const all = [done(), done(), done()];
    const own = run(source);
    const factorial = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([
        0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 126, 1, 126, 3, 2, 1, 0, 7, 5, 1, 1,
        102, 0, 0, 10, 23, 1, 21, 0, 32, 0, 80, 4, 126, 66, 1, 5, 32, 0, 32, 0, 66, 1,
        125, 16, 0, 126, 11, 11]))).exports.f;
    Promise.all(all).then(others => {
        console.log(own.join('\n'));
        console.log(others.map(lines => lines.join() === own.join()).join(' '));
        console.log(String(factorial(20n)));
    });
}
