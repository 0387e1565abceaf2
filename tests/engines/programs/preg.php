<?php
// SPDX-License-Identifier: GPL-2.0
// A tokenizer of regular expressions, by PCRE's compiler, on this file a hundred times;
// and two hundred patterns, each used once.
$kinds = [
    'space' => '\s+', 'comment' => '//[^\n]*', 'string' => "'(?:[^'\\\\]|\\\\.)*+'",
    'variable' => '\$\w+', 'number' => '\d+(?:\.\d+)?', 'word' => '[A-Za-z_]\w*',
    'arrow' => '=>|->', 'sign' => '.',
];
$parts = array_map(fn ($name, $kind) => "(?<$name>$kind)", array_keys($kinds), $kinds);
$pattern = '~' . implode('|', $parts) . '~s';
$text = str_repeat(file_get_contents(__FILE__), 100);
$counts = array_fill_keys(array_keys($kinds), 0);
preg_match_all($pattern, $text, $found, PREG_SET_ORDER | PREG_UNMATCHED_AS_NULL);
foreach ($found as $one) {
    foreach ($kinds as $name => $_) {
        $counts[$name] += $one[$name] !== null ? 1 : 0;
    }
}
foreach ($counts as $name => $count) {
    echo "$name $count\n";
}
$sum = 0;
for ($number = 1; $number <= 200; $number++) {
    $sum += preg_match_all("~(\\w)(?:\\w{{$number}})?\\W{1," . ($number % 7 + 1) . '}~', $text);
}
echo "$sum\n";
echo preg_last_error_msg(), "\n";
