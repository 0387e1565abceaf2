#lang racket/base
;; SPDX-License-Identifier: GPL-2.0
;; What Racket compiles: loops, hashes, continuations; 50 procedures by eval.
(define (fib n) (if (< n 2) n (+ (fib (- n 1)) (fib (- n 2)))))

(define (words count)
  (define seen (make-hash))
  (for ([i (in-range count)])
    (hash-update! seen (number->string (modulo (* i i) 65537) 16) add1 0))
  (car (sort (hash->list seen)
             (lambda (a b) (or (> (cdr a) (cdr b)) (and (= (cdr a) (cdr b)) (string<? (car a) (car b))))))))

(define-namespace-anchor here)
(define (procedures count)
  (define space (namespace-anchor->namespace here))
  (for/sum ([factor (in-range 1 (add1 count))])
    (define f (eval `(lambda (k) (for/fold ([t 0]) ([i (in-range k)]) (modulo (+ (* t ,factor) i) 10007))) space))
    (+ (f 300) (f 300))))

(define (escapes count)
  (for/sum ([i (in-range count)])
    (let/ec out (for ([x (in-range 7)]) (when (= x (modulo i 7)) (out x))) 0)))

(displayln (fib 22))
(displayln (words 20000))
(displayln (procedures 50))
(displayln (escapes 20000))
