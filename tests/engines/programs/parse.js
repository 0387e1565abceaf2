// SPDX-License-Identifier: GPL-2.0
// Acorn, a parser of JavaScript in JavaScript, which parses its own source.
const GLib = imports.gi.GLib;
const path = ARGV[0];
const [, bytes] = GLib.file_get_contents(path);
const text = new TextDecoder().decode(bytes);
const module = {exports: {}};
new Function('exports', 'module', text)(module.exports, module);
const {parse} = module.exports;
const kinds = new Map();
(function walk(node) {
    if (Array.isArray(node))
        return node.forEach(walk);
    if (typeof node?.type !== 'string')
        return;
    kinds.set(node.type, (kinds.get(node.type) ?? 0) + 1);
    for (const key in node) {
        if (typeof node[key] === 'object')
            walk(node[key]);
    }
})(parse(text, {ecmaVersion: 'latest'}));
for (const [kind, count] of [...kinds].sort()) print(`${kind} ${count}`);
